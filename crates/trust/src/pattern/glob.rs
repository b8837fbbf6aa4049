//! Wildcards over bytes, matched in one pass whatever the pattern and whatever the text.

/// A text with wildcards that covers another as a whole. `*` is any bytes of a part, `**` any bytes, `?` one byte of a
/// part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    /// The literal bytes before the first wildcard: most texts are told apart by these alone.
    prefix: Vec<u8>,
    tokens: Vec<Token>,
    part: Part,
}

/// What the parts of a text are made of, which a star does not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Names of a path: anything but the slash.
    Name,
    /// Words of a kernel command line. The kernel ends them at every white space of Latin-1, and not within double
    /// quotes (lib/cmdline.c, next_arg), so that only what is printable in ASCII and no quote is of a word.
    Word,
}

impl Part {
    fn has(self, byte: u8) -> bool {
        match self {
            Part::Name => byte != b'/',
            Part::Word => byte.is_ascii_graphic() && byte != b'"',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Name,
    Deep,
}

/// There is more after the first wildcard than can be matched in one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Glob {
    /// Reads a pattern; with `is_tree` it covers everything that starts like it as well.
    pub(super) fn new(text: &str, part: Part, is_tree: bool) -> Result<Glob, TooLong> {
        let literal = text.find(['*', '?']).unwrap_or(text.len());
        let (prefix, rest) = text.split_at(literal);
        let mut tokens = Vec::new();
        let mut bytes = rest.bytes().peekable();
        while let Some(byte) = bytes.next() {
            tokens.push(match byte {
                b'*' if bytes.next_if_eq(&b'*').is_some() => Token::Deep,
                b'*' => Token::Name,
                b'?' => Token::One,
                byte => Token::Byte(byte),
            });
        }
        if is_tree {
            tokens.push(Token::Deep);
        }
        if tokens.len() > TOKENS_MAX {
            return Err(TooLong);
        }
        Ok(Glob { prefix: prefix.as_bytes().to_vec(), tokens, part })
    }

    /// Whether the whole of `text` is covered.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        text.strip_prefix(self.prefix.as_slice()).is_some_and(|rest| self.tokens_match(rest))
    }

    /// The states of the pattern's automaton are the bits of one word, so a hostile text costs no more than its
    /// length: bit `i` says that the first `i` tokens cover what was read.
    fn tokens_match(&self, rest: &[u8]) -> bool {
        let mut states = self.skip_stars(1);
        for byte in rest {
            let mut next = 0;
            for (index, token) in self.tokens.iter().enumerate().filter(|(index, _)| states >> index & 1 == 1)
            {
                next |= match token {
                    Token::Byte(expected) if expected == byte => 1 << (index + 1),
                    Token::One if self.part.has(*byte) => 1 << (index + 1),
                    Token::Name if self.part.has(*byte) => 1 << index,
                    Token::Deep => 1 << index,
                    _ => 0,
                };
            }
            states = self.skip_stars(next);
            if states == 0 {
                return false;
            }
        }
        states >> self.tokens.len() & 1 == 1
    }

    /// A star may cover nothing.
    fn skip_stars(&self, mut states: u128) -> u128 {
        for (index, token) in self.tokens.iter().enumerate() {
            if matches!(token, Token::Name | Token::Deep) && states >> index & 1 == 1 {
                states |= 1 << (index + 1);
            }
        }
        states
    }
}

/// One bit of a `u128` per token, and one for the start.
pub(super) const TOKENS_MAX: usize = 127;
