//! The configuration of NFS-Ganesha: blocks, their parameters, and where each stands in the file.
//!
//! Source: `src/config_parsing/conf_lex.l` and `conf_yacc.y` of nfs-ganesha; ganesha-export-config(8).

use std::{ops::Range, path::Path};

use crate::{
    error::NfsError,
    table::{Access, Shut},
};

/// `NAME { … }`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) name: String,
    /// From the name to the brace that closes it.
    pub(super) range: Range<usize>,
    /// Behind the brace that opens it.
    inside: usize,
    params: Vec<Param>,
    blocks: Vec<Block>,
}

#[derive(Debug, PartialEq, Eq)]
struct Param {
    key: String,
    /// Its words, without quotes.
    values: Vec<String>,
    /// From the first word to the last.
    range: Range<usize>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) blocks: Vec<Block>,
    /// Files that are included, as they are written.
    pub(super) includes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Word,
    Open,
    Close,
    Equals,
    Comma,
    Semicolon,
}

#[derive(Clone, Debug)]
struct Token {
    kind: TokenKind,
    range: Range<usize>,
}

/// `file` is only named in errors.
pub(super) fn parse(file: &Path, text: &str) -> Result<Parsed, NfsError> {
    let mut parser =
        Parser { file, text, tokens: tokens(file, text)?.into_iter().peekable(), parsed: Parsed::default() };
    while let Some(block) = parser.top()? {
        parser.parsed.blocks.push(block);
    }
    Ok(parser.parsed)
}

fn syntax(file: &Path, text: &str, at: usize, problem: &'static str) -> NfsError {
    let line = text[..at.min(text.len())].matches('\n').count() + 1;
    NfsError::Syntax { path: file.to_owned(), line, problem }
}

fn tokens(file: &Path, text: &str) -> Result<Vec<Token>, NfsError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let single = |kind| Some(Token { kind, range: at..at + 1 });
        let token = match c {
            '#' => {
                at += text[at..].find('\n').unwrap_or(text.len() - at);
                continue;
            }
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '{' => single(TokenKind::Open),
            '}' => single(TokenKind::Close),
            '=' => single(TokenKind::Equals),
            ',' => single(TokenKind::Comma),
            ';' => single(TokenKind::Semicolon),
            '"' | '\'' => {
                let end = quoted_end(text, at, c).ok_or_else(|| syntax(file, text, at, "a quote that does not end"))?;
                Some(Token { kind: TokenKind::Word, range: at..end })
            }
            _ => {
                let is_end = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | '=' | ',' | ';' | '"' | '\'' | '#');
                let end = text[at..].find(is_end).map_or(text.len(), |length| at + length);
                Some(Token { kind: TokenKind::Word, range: at..end })
            }
        };
        if let Some(token) = token {
            at = token.range.end;
            tokens.push(token);
        }
    }
    Ok(tokens)
}

fn quoted_end(text: &str, start: usize, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in text[start + 1..].char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if quote == '"' => is_escaped = true,
            c if c == quote => return Some(start + 1 + at + 1),
            _ => {}
        }
    }
    None
}

struct Parser<'a> {
    file: &'a Path,
    text: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    parsed: Parsed,
}

impl Parser<'_> {
    fn word(&self, token: &Token) -> String {
        self.text[token.range.clone()].trim_matches(['"', '\'']).to_owned()
    }

    fn fail<T>(&self, at: usize, problem: &'static str) -> Result<T, NfsError> {
        Err(syntax(self.file, self.text, at, problem))
    }

    fn top(&mut self) -> Result<Option<Block>, NfsError> {
        while let Some(token) = self.tokens.next() {
            let word = self.word(&token);
            match (token.kind, word.as_str()) {
                (TokenKind::Word, "%include") => match self.tokens.next() {
                    Some(file) if file.kind == TokenKind::Word => {
                        let file = self.word(&file);
                        self.parsed.includes.push(file);
                    }
                    _ => return self.fail(token.range.start, "%include without a file"),
                },
                (TokenKind::Word, word) if word.starts_with('%') => {
                    return self
                        .fail(token.range.start, "a directive other than %include: its exports can't be edited");
                }
                (TokenKind::Word, _) => {
                    return match self.tokens.next() {
                        Some(open) if open.kind == TokenKind::Open => self.block(&token, &open).map(Some),
                        _ => self.fail(token.range.start, "a block has no brace"),
                    };
                }
                (TokenKind::Semicolon, _) => {}
                _ => return self.fail(token.range.start, "something outside any block"),
            }
        }
        Ok(None)
    }

    fn block(&mut self, name: &Token, open: &Token) -> Result<Block, NfsError> {
        let mut block = Block { name: self.word(name), inside: open.range.end, ..Block::default() };
        loop {
            let Some(token) = self.tokens.next() else {
                return self.fail(name.range.start, "a block that does not end");
            };
            match token.kind {
                TokenKind::Close => {
                    block.range = name.range.start..token.range.end;
                    return Ok(block);
                }
                TokenKind::Semicolon => {}
                TokenKind::Word => match self.tokens.next() {
                    Some(open) if open.kind == TokenKind::Open => {
                        let inner = self.block(&token, &open)?;
                        block.blocks.push(inner);
                    }
                    Some(equals) if equals.kind == TokenKind::Equals => {
                        let param = self.param(&token, &equals)?;
                        block.params.push(param);
                    }
                    _ => return self.fail(token.range.start, "a word that is neither a block nor a parameter"),
                },
                TokenKind::Open | TokenKind::Equals | TokenKind::Comma => {
                    return self.fail(token.range.start, "a sign where a name was expected");
                }
            }
        }
    }

    fn param(&mut self, key: &Token, equals: &Token) -> Result<Param, NfsError> {
        let (mut values, mut range) = (Vec::new(), None::<Range<usize>>);
        while let Some(token) = self.tokens.next_if(|token| matches!(token.kind, TokenKind::Word | TokenKind::Comma)) {
            if token.kind == TokenKind::Word {
                values.push(self.word(&token));
                range = Some(range.map_or(token.range.start, |range| range.start)..token.range.end);
            }
        }
        match self.tokens.next() {
            Some(end) if end.kind == TokenKind::Semicolon => {}
            _ => return self.fail(key.range.start, "a parameter without a semicolon"),
        }
        let range = range.unwrap_or(equals.range.end..equals.range.end);
        Ok(Param { key: self.word(key), values, range })
    }
}

impl Block {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The last one counts.
    fn param(&self, key: &str) -> Option<&Param> {
        self.params.iter().rev().find(|param| param.key.eq_ignore_ascii_case(key))
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.param(key)?.values.first().map(String::as_str)
    }

    pub(super) fn access_type(&self) -> Option<AccessType> {
        self.value("Access_Type").map(AccessType::of)
    }

    /// Blocks of clients, in the order in which the server tries them.
    pub(super) fn clients(&self) -> impl Iterator<Item = &Self> {
        self.blocks.iter().filter(|block| block.is("CLIENT"))
    }

    pub(super) fn client_names(&self) -> Vec<String> {
        let all = self.params.iter().filter(|param| param.key.eq_ignore_ascii_case("Clients"));
        all.flat_map(|param| param.values.iter().cloned()).collect()
    }
}

/// `Access_Type` of ganesha-export-config(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessType {
    None,
    Rw,
    Ro,
    MdOnly,
    MdOnlyRo,
    /// The server would not take it.
    Other,
}

impl AccessType {
    fn of(text: &str) -> Self {
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        match () {
            () if is("none") => Self::None,
            () if is("rw") => Self::Rw,
            () if is("ro") => Self::Ro,
            () if is("mdonly") => Self::MdOnly,
            () if is("mdonly_ro") => Self::MdOnlyRo,
            () => Self::Other,
        }
    }

    fn shut(self, shut: Shut) -> Self {
        match (shut, self) {
            (Shut::Refuse, _) | (Shut::ReadOnly, Self::None) => Self::None,
            (Shut::ReadOnly, Self::MdOnly | Self::MdOnlyRo) => Self::MdOnlyRo,
            (Shut::ReadOnly, Self::Rw | Self::Ro | Self::Other) => Self::Ro,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::None | Self::Other => "NONE",
            Self::Rw => "RW",
            Self::Ro => "RO",
            Self::MdOnly => "MDONLY",
            Self::MdOnlyRo => "MDONLY_RO",
        }
    }

    pub(super) fn access(self) -> Access {
        match self {
            Self::None => Access::None,
            Self::Ro | Self::MdOnlyRo => Access::ReadOnly,
            Self::Rw | Self::MdOnly => Access::ReadWrite,
            Self::Other => Access::Unknown,
        }
    }
}

/// Tells the block of everybody else from those of the file.
const OURS: &str = "# added by drover-agent";

/// The export's block as it stands while its clients are shut out. Every client says what it may, and those that no other block names are
/// named by one of their own, so that the running server can be asked for all of them.
pub(super) fn shut(text: &str, export: &Block, inherited: AccessType, shut: Shut) -> String {
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let own = export.access_type().unwrap_or(inherited);
    let mut set = |block: &Block, to: AccessType| match block.params.iter().rfind(|it| is_access(it)) {
        Some(param) if block.access_type() == Some(to) => _ = param,
        Some(param) => edits.push((param.range.clone(), to.text().to_owned())),
        None => edits.push((block.inside..block.inside, format!(" Access_Type = {};", to.text()))),
    };
    set(export, own.shut(shut));
    for client in export.clients() {
        set(client, client.access_type().unwrap_or(own).shut(shut));
    }
    // One that stands there already was left by somebody's edit of the block.
    let is_ours = |client: &&Block| text[client.range.clone()].contains(OURS);
    for client in export.clients().filter(is_ours) {
        edits.retain(|(range, _)| !(client.range.start <= range.start && range.end <= client.range.end));
        edits.push((client.range.clone(), String::new()));
    }
    let closing = export.range.end - 1;
    let rest = format!("CLIENT {{ {OURS}\n Clients = *; Access_Type = {}; }} ", own.shut(shut).text());
    edits.push((closing..closing, rest));
    let mut changed = text[export.range.clone()].to_owned();
    edits.sort_by_key(|(range, _)| range.start);
    for (range, text) in edits.into_iter().rev() {
        changed.replace_range(range.start - export.range.start..range.end - export.range.start, &text);
    }
    changed
}

fn is_access(param: &Param) -> bool {
    param.key.eq_ignore_ascii_case("Access_Type")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"# EXPORT { in a comment
NFS_CORE_PARAM { NFS_Port = 2049; Protocols = 3,4; }
%include "/etc/ganesha/more.conf"
EXPORT_DEFAULTS { Access_Type = RW; }
Export
{
    Export_Id = 77; # the id
    Path = "/srv/with space";
    Pseudo = /x;
    access_type = RW;
    FSAL { Name = VFS; }
    CLIENT { Clients = 127.0.0.1, 10.0.0.0/24; Access_Type = RW; Squash = No_Root_Squash; }
    CLIENT { Clients = *.example.org; }
    CLIENT { Clients = @readers; Access_Type = RO; }
}
EXPORT { Export_Id = 78; Path = /y; Pseudo = "/y}"; FSAL { Name = VFS; } }
"#;

    fn export(parsed: &Parsed, id: &str) -> usize {
        parsed.blocks.iter().position(|it| it.is("EXPORT") && it.value("export_id") == Some(id)).unwrap()
    }

    #[test]
    fn blocks_and_parameters_are_found() {
        let parsed = parse(Path::new("/f"), SAMPLE).unwrap();
        assert_eq!(parsed.includes, ["/etc/ganesha/more.conf"]);
        let first = &parsed.blocks[export(&parsed, "77")];
        assert_eq!(first.value("Path"), Some("/srv/with space"));
        assert_eq!(first.access_type(), Some(AccessType::Rw));
        let clients: Vec<_> = first.clients().map(|it| (it.client_names(), it.access_type())).collect();
        assert_eq!(clients[0], (vec!["127.0.0.1".to_owned(), "10.0.0.0/24".to_owned()], Some(AccessType::Rw)));
        assert_eq!(clients[1], (vec!["*.example.org".to_owned()], None));
        assert_eq!(parsed.blocks[export(&parsed, "78")].value("pseudo"), Some("/y}"));
    }

    #[test]
    fn an_export_becomes_read_only_and_the_rest_stays() {
        let parsed = parse(Path::new("/f"), SAMPLE).unwrap();
        let first = &parsed.blocks[export(&parsed, "77")];
        let expected = r#"Export
{
    Export_Id = 77; # the id
    Path = "/srv/with space";
    Pseudo = /x;
    access_type = RO;
    FSAL { Name = VFS; }
    CLIENT { Clients = 127.0.0.1, 10.0.0.0/24; Access_Type = RO; Squash = No_Root_Squash; }
    CLIENT { Access_Type = RO; Clients = *.example.org; }
    CLIENT { Clients = @readers; Access_Type = RO; }
CLIENT { # added by drover-agent
 Clients = *; Access_Type = RO; } }"#;
        assert_eq!(shut(SAMPLE, first, AccessType::Rw, Shut::ReadOnly), expected);
        // What it inherits is said, so that nothing is widened.
        let second = &parsed.blocks[export(&parsed, "78")];
        let refused = shut(SAMPLE, second, AccessType::Rw, Shut::Refuse);
        assert!(refused.starts_with("EXPORT { Access_Type = NONE; Export_Id"), "{refused}");
        let none = shut(SAMPLE, second, AccessType::None, Shut::ReadOnly);
        assert!(none.ends_with("# added by drover-agent\n Clients = *; Access_Type = NONE; } }"), "{none}");
        // Shut again after somebody's edit, it has one such block.
        let parsed = parse(Path::new("/f"), expected).unwrap();
        let again = super::shut(expected, &parsed.blocks[0], AccessType::None, Shut::Refuse);
        assert_eq!(again.matches("added by drover-agent").count(), 1, "{again}");
        // The result is still one block.
        assert_eq!(parse(Path::new("/f"), &refused).unwrap().blocks.len(), 1);
    }

    #[test]
    fn what_is_not_understood_is_told_by_its_line() {
        for (text, line) in
            [("EXPORT {\n Path = /x;\n", 1), ("\nEXPORT { Path /x; }", 2), ("A { b = \"c }", 1), ("%url rados://x", 1)]
        {
            match parse(Path::new("/f"), text) {
                Err(NfsError::Syntax { line: told, .. }) => assert_eq!(told, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
