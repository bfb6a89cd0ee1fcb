use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn there_are_exactly_these_verbs() {
    let command = Cli::command();
    let verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(verbs, ["sync", "verify", "status", "points", "rollback"]);
}

#[test]
fn help_documents_the_exit_codes() {
    let help = Cli::command().render_long_help().to_string();
    for code in ["  0  ", "  1  ", "  2  ", "  3  ", "  4  ", "  5  ", "  130  "] {
        assert!(help.contains(code), "{code} is missing in:\n{help}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for line in [
        "drover sync",
        "drover sync vol --all",
        "drover sync vol --push --pull",
        "drover sync --all --request-id x",
        "drover sync vol --max-delete 101%",
        "drover sync vol --max-delete many",
        "drover rollback vol",
        "drover rollback vol 12 --release",
        "drover status extra",
        "drover sync vol --agent https://a:1",
    ] {
        assert!(parse(line).is_err(), "{line} should be refused");
    }
    for line in [
        "drover sync vol --max-delete 0",
        "drover sync vol --max-delete 5% --pull -n --output json",
        "drover rollback vol --release",
        "drover rollback vol 12+1 -y",
        "drover --agent a=https://a:1,b=https://b:1 status -q",
    ] {
        parse(line).unwrap();
    }
}
