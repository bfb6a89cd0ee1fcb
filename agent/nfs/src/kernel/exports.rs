//! exports(5): lines with a path and its clients, changed in place without touching anything else in the file.

use std::{ops::Range, os::unix::ffi::OsStrExt as _, path::PathBuf};

use crate::{
    edit,
    place::unescape,
    table::{Access, Shut},
};

/// What the comments begin with that a refused line becomes.
const REFUSED: &str = "# refused by drover-agent: ";

/// A logical line: physical ones that end with a backslash go on with the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Of the whole line, with what ends it.
    pub(super) range: Range<usize>,
    pub(super) path: PathBuf,
    /// Options of all its clients (`-rw,sync`), in the file.
    defaults: Vec<Range<usize>>,
    pub(super) clients: Vec<Token>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// As it is written; `*` where only options are.
    pub(super) who: String,
    /// Between the parentheses, in the file.
    options: Option<Range<usize>>,
    /// Where the token ends.
    end: usize,
}

/// Lines that export something.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = logical_end(text, start);
        lines.extend(line(text, start..end));
        start = end;
    }
    lines
}

/// Those, and the comments that refused ones have become, each physical line of which begins alike.
pub(super) fn entries(text: &str) -> Vec<Range<usize>> {
    let mut entries: Vec<Range<usize>> = lines(text).into_iter().map(|line| line.range).collect();
    let mut start = 0;
    while start < text.len() {
        let mut end = start;
        loop {
            let physical = text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1);
            if !text[end..].starts_with(REFUSED) {
                end = if end == start { physical } else { end };
                break;
            }
            let goes_on = text[end..physical].trim_end_matches('\n').ends_with('\\');
            end = physical;
            if !goes_on || end == text.len() {
                break;
            }
        }
        if text[start..end].starts_with(REFUSED) {
            entries.push(start..end);
        }
        start = end;
    }
    entries.sort_by_key(|entry| entry.start);
    entries
}

fn logical_end(text: &str, start: usize) -> usize {
    let mut at = start;
    loop {
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1);
        let physical = text[at..end].trim_end_matches('\n');
        let is_comment = text[start..end].trim_start().starts_with('#');
        if end == text.len() || !physical.ends_with('\\') || is_comment {
            return end;
        }
        at = end;
    }
}

fn line(text: &str, range: Range<usize>) -> Option<Line> {
    let mut tokens = tokens(text, range.clone()).into_iter();
    let path = tokens.next()?;
    let written = text[path.clone()].trim_matches('"');
    let (mut clients, mut defaults) = (Vec::new(), Vec::new());
    for token in tokens {
        let word = &text[token.clone()];
        if word.starts_with('-') {
            defaults.push(token.start + 1..token.end);
            continue;
        }
        let open = word.find('(');
        let options = open.map(|open| token.start + open + 1..token.end - usize::from(word.ends_with(')')));
        let who = word[..open.unwrap_or(word.len())].trim_matches('"');
        let who = if who.is_empty() { "*".to_owned() } else { who.to_owned() };
        clients.push(Token { who, options, end: token.end });
    }
    Some(Line { range, path: unescape(edit::path(written).as_os_str().as_bytes()), defaults, clients })
}

/// Words of a logical line up to a comment. A quoted word may hold blanks.
fn tokens(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let (mut tokens, mut word, mut quoted) = (Vec::new(), None, false);
    for (at, c) in text[range.clone()].char_indices().map(|(at, c)| (at + range.start, c)) {
        let is_continuation = c == '\\' && text[at + 1..].starts_with('\n');
        let is_blank = !quoted && (c.is_whitespace() || is_continuation);
        match (is_blank, word) {
            (true, Some(start)) => {
                tokens.push(start..at);
                word = None;
            }
            (true, None) => {}
            (false, None) if c == '#' => return tokens,
            (false, None) => word = Some(at),
            (false, Some(_)) => {}
        }
        if c == '"' {
            quoted = !quoted;
        }
    }
    tokens.extend(word.map(|start| start..range.end));
    tokens
}

/// The line as it stands while its clients are shut out.
pub(super) fn shut(text: &str, line: &Line, shut: Shut) -> String {
    let whole = &text[line.range.clone()];
    match shut {
        Shut::Refuse => whole.split_inclusive('\n').map(|physical| format!("{REFUSED}{physical}")).collect(),
        Shut::ReadOnly => {
            let mut changed = whole.to_owned();
            for token in line.clients.iter().rev() {
                let at = |position: usize| position - line.range.start;
                match &token.options {
                    Some(options) => {
                        let options = at(options.start)..at(options.end);
                        let read_only = read_only(&changed[options.clone()]);
                        changed.replace_range(options, &read_only);
                    }
                    None => changed.insert_str(at(token.end), "(ro)"),
                }
            }
            // Before the clients. A flavour that says nothing itself has what is said here.
            for defaults in line.defaults.iter().rev() {
                let defaults = defaults.start - line.range.start..defaults.end - line.range.start;
                let words: Vec<_> =
                    changed[defaults.clone()].split(',').map(|it| if it == "rw" { "ro" } else { it }).collect();
                let words = words.join(",");
                changed.replace_range(defaults, &words);
            }
            changed
        }
    }
}

/// Each `rw` becomes `ro`, also those of single flavours (`sec=`); where there is neither it is said.
pub(super) fn read_only(options: &str) -> String {
    let mut found = false;
    let words = options.split(',').map(|word| match word.trim() {
        "rw" | "ro" => {
            found = true;
            "ro"
        }
        _ => word,
    });
    let words = words.collect::<Vec<_>>().join(",");
    match (found, words.trim().is_empty()) {
        (true, _) => words,
        (false, true) => "ro".to_owned(),
        (false, false) => format!("{words},ro"),
    }
}

/// By the options as `etab` has them: none is implied there.
pub(super) fn access(options: &str) -> Access {
    if options.split(',').any(|word| word == "rw") { Access::ReadWrite } else { Access::ReadOnly }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SAMPLE: &str = r#"# a comment \
/srv/a 127.0.0.1(rw,sync,fsid=5) 10.0.0.0/24(rw,no_root_squash) *.example.org(ro) @netgroup(rw) # all of them
/srv/b -sync,rw,no_subtree_check hostA hostB(ro)
"/srv/with space" 127.0.0.1(rw)
/srv/oct\040al 127.0.0.1(rw)
/srv/d 127.0.0.1(rw,sync) \
   127.0.0.2(sync)
/srv/c (rw)
/srv/e ::1() 2001:db8::/32(sec=krb5:sys,rw,sec=none,ro)
"#;

    fn edited(text: &str, path: &str, how: Shut) -> String {
        let lines = lines(text);
        let line = lines.iter().find(|line| line.path == Path::new(path)).unwrap();
        shut(text, line, how)
    }

    #[test]
    fn every_client_of_a_line_is_found() {
        let lines = lines(SAMPLE);
        let shown: Vec<_> = lines
            .iter()
            .map(|line| {
                (line.path.to_str().unwrap(), line.clients.iter().map(|it| it.who.as_str()).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("/srv/a", vec!["127.0.0.1", "10.0.0.0/24", "*.example.org", "@netgroup"]),
                ("/srv/b", vec!["hostA", "hostB"]),
                ("/srv/with space", vec!["127.0.0.1"]),
                ("/srv/oct al", vec!["127.0.0.1"]),
                ("/srv/d", vec!["127.0.0.1", "127.0.0.2"]),
                ("/srv/c", vec!["*"]),
                ("/srv/e", vec!["::1", "2001:db8::/32"]),
            ]
        );
    }

    #[test]
    fn clients_become_read_only_and_nothing_else_changes() {
        for (path, line) in [
            (
                "/srv/a",
                "/srv/a 127.0.0.1(ro,sync,fsid=5) 10.0.0.0/24(ro,no_root_squash) *.example.org(ro) @netgroup(ro) # all of them\n",
            ),
            ("/srv/b", "/srv/b -sync,ro,no_subtree_check hostA(ro) hostB(ro)\n"),
            ("/srv/with space", "\"/srv/with space\" 127.0.0.1(ro)\n"),
            ("/srv/d", "/srv/d 127.0.0.1(ro,sync) \\\n   127.0.0.2(sync,ro)\n"),
            ("/srv/c", "/srv/c (ro)\n"),
            ("/srv/e", "/srv/e ::1(ro) 2001:db8::/32(sec=krb5:sys,ro,sec=none,ro)\n"),
        ] {
            assert_eq!(edited(SAMPLE, path, Shut::ReadOnly), line);
        }
    }

    #[test]
    fn a_refused_line_is_a_comment() {
        let refused = edited(SAMPLE, "/srv/d", Shut::Refuse);
        assert_eq!(refused.lines().count(), 2);
        assert!(lines(&refused).is_empty(), "{refused}");
        let twice = format!("{refused}{}/srv/x *(rw)\n", edited(SAMPLE, "/srv/c", Shut::Refuse));
        let found: Vec<&str> = entries(&twice).into_iter().map(|entry| &twice[entry]).collect();
        assert_eq!(found, [refused.as_str(), "# refused by drover-agent: /srv/c (rw)\n", "/srv/x *(rw)\n"]);
        // The last line of a file may end without a newline.
        assert_eq!(edited("/x *(rw)", "/x", Shut::Refuse), "# refused by drover-agent: /x *(rw)");
    }
}
