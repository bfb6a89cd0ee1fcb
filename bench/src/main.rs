use clap::Parser;

fn main() -> anyhow::Result<()> {
    drover_bench::cli::Arguments::parse().run()
}
