//! The capabilities that `deploy/ceph` documents, read from there: tests run with exactly these.

use std::{fs, path::Path};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Site name, bootstrap tokens and peers, once.
    SetUp,
    /// All else that an agent does.
    Daily,
}

impl Recipe {
    fn file(self) -> &'static str {
        match self {
            Self::SetUp => "setup.sh",
            Self::Daily => "daily.sh",
        }
    }

    /// The entity without `client.`, as the file names it.
    pub fn user(self) -> String {
        let name = self.words().into_iter().find_map(|word| word.strip_prefix("client.").map(str::to_owned));
        name.expect("the recipe names a user")
    }

    /// Kind of daemon, and what is allowed there.
    pub fn caps(self, pool: &str) -> Vec<(String, String)> {
        let words = self.words();
        let pairs = words.windows(2).filter(|pair| ["mon", "mgr", "osd"].contains(&pair[0].as_str()));
        pairs.map(|pair| (pair[0].clone(), pair[1].replace("$pools", &format!("profile rbd pool={pool}")))).collect()
    }

    /// Of the command that has them.
    fn words(self) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/ceph").join(self.file());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let at = text.find("\nceph auth caps ").expect("the recipe's command");
        words(&text[at..])
    }
}

/// As the shell splits them: quotes of both kinds, a backslash before the end of a line and in double quotes. Variables
/// stay as they are.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => match letters.next().expect("a letter after a backslash") {
                '\n' => {}
                escaped => word.get_or_insert_default().push(escaped),
            },
            (end, Some(open)) if end == open => quote = None,
            (open @ ('\'' | '"'), None) => {
                quote = Some(open);
                word.get_or_insert_default();
            }
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}
