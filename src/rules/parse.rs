//! Expressions to syntax trees: a lexer that the parser drives (only it knows whether `/` divides or
//! begins a regular expression) and precedence climbing.
//!
//! The surprising idea: recursion is bounded twice. A counter stops the parser in nested parentheses,
//! and every tree carries its height, so that whoever walks it later cannot run out of stack either.

use super::error::Mistake;
use super::limits::{EXPRESSION_BYTES_MAX, NESTING_MAX};

/// A part of an expression.
#[derive(Debug)]
pub(super) struct Ast {
    /// Its first byte in the expression.
    pub at: usize,
    /// Levels, this one included; at most [`NESTING_MAX`].
    pub height: u16,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Regex {
        source: String,
        ignores_case: bool,
    },
    Array(Vec<Ast>),
    /// A variable; `$` is part of the name.
    Name(String),
    Member(Box<Ast>, String),
    Index(Box<Ast>, Box<Ast>),
    Call(Box<Ast>, Vec<Ast>),
    Not(Box<Ast>),
    Negate(Box<Ast>),
    /// `a && b && …`
    All(Vec<Ast>),
    /// `a || b || …`
    Any(Vec<Ast>),
    Binary(Operator, Box<(Ast, Ast)>),
    Choose(Box<(Ast, Ast, Ast)>),
}

/// An operator between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    /// As the texts of mistakes name it: `===` is `==` there.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    /// How tightly it binds.
    const fn power(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal | Self::NotEqual => 3,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => 4,
            Self::Add | Self::Subtract => 5,
            Self::Multiply | Self::Divide | Self::Remainder => 6,
        }
    }
}

const TOO_DEEP: &str = "Expression is nested too deeply.";

/// Reads one expression.
pub(super) fn parse(text: &str) -> Result<Ast, Mistake> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(Mistake::new(0, "Expression is too long."));
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    let ast = parser.ternary()?;
    match parser.peek() {
        None => Ok(ast),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: u16,
}

impl Parser<'_> {
    /// `a ? b : c`, and everything that binds tighter.
    ///
    /// Parentheses lead back here through `binary`, `unary`, `postfix` and `operand`: what these need
    /// besides stands in functions of its own, which keeps the stack of a deep expression small.
    fn ternary(&mut self) -> Result<Ast, Mistake> {
        self.descend()?;
        let condition = self.binary(0)?;
        let ast = if self.take("?") { self.choice(condition)? } else { condition };
        self.depth -= 1;
        Ok(ast)
    }

    /// What follows `condition ?`.
    fn choice(&mut self, condition: Ast) -> Result<Ast, Mistake> {
        let yes = self.ternary()?;
        self.expect(":")?;
        let no = self.ternary()?;
        let height = condition.height.max(yes.height).max(no.height);
        let at = condition.at;
        node(at, height, Kind::Choose(Box::new((condition, yes, no))))
    }

    /// Operands joined by operators that bind at least as tightly as `floor`; all group to the left.
    fn binary(&mut self, floor: u8) -> Result<Ast, Mistake> {
        let mut left = self.unary()?;
        while let Some((operator, length)) = self.operator()? {
            if operator.power() < floor {
                break;
            }
            self.at += length;
            let right = self.binary(operator.power() + 1)?;
            left = join(operator, left, right)?;
        }
        Ok(left)
    }

    /// The operator that comes next, and its length.
    fn operator(&mut self) -> Result<Option<(Operator, usize)>, Mistake> {
        use Operator as O;
        self.skip_space();
        let rest = &self.text.as_bytes()[self.at..];
        let found = match rest {
            [b'=', b'=', b'=', ..] => (O::Equal, 3),
            [b'!', b'=', b'=', ..] => (O::NotEqual, 3),
            [b'=', b'=', ..] => (O::Equal, 2),
            [b'!', b'=', ..] => (O::NotEqual, 2),
            [b'=', ..] => return Err(self.assignment()),
            [b'<', b'=', ..] => (O::LessOrEqual, 2),
            [b'>', b'=', ..] => (O::GreaterOrEqual, 2),
            [b'<', ..] => (O::Less, 1),
            [b'>', ..] => (O::Greater, 1),
            [b'&', b'&', ..] => (O::And, 2),
            [b'|', b'|', ..] => (O::Or, 2),
            [b'+', ..] => (O::Add, 1),
            [b'-', ..] => (O::Subtract, 1),
            [b'*', ..] => (O::Multiply, 1),
            [b'/', ..] => (O::Divide, 1),
            [b'%', ..] => (O::Remainder, 1),
            _ => return Ok(None),
        };
        Ok(Some(found))
    }

    fn unary(&mut self) -> Result<Ast, Mistake> {
        self.skip_space();
        let at = self.at;
        let kind: fn(Box<Ast>) -> Kind = match self.peek() {
            Some(b'!') => Kind::Not,
            Some(b'-') => Kind::Negate,
            _ => return self.postfix(),
        };
        self.at += 1;
        self.descend()?;
        let operand = self.unary()?;
        self.depth -= 1;
        node(at, operand.height, kind(Box::new(operand)))
    }

    /// An operand and what follows it: `.name`, `[index]`, `(arguments)`.
    fn postfix(&mut self) -> Result<Ast, Mistake> {
        let mut ast = self.operand()?;
        while let Some(b'.' | b'[' | b'(') = self.peek() {
            ast = self.suffix(ast)?;
        }
        Ok(ast)
    }

    fn suffix(&mut self, target: Ast) -> Result<Ast, Mistake> {
        let at = target.at;
        let mark = self.peek();
        self.at += 1;
        match mark {
            Some(b'.') => {
                self.skip_space();
                let name = self.identifier();
                if name.is_empty() {
                    return Err(self.unexpected());
                }
                node(at, target.height, Kind::Member(Box::new(target), name))
            }
            Some(b'[') => {
                let index = self.ternary()?;
                self.expect("]")?;
                let height = target.height.max(index.height);
                node(at, height, Kind::Index(Box::new(target), Box::new(index)))
            }
            _ => {
                let arguments = self.list(")")?;
                let height = highest(&arguments).max(target.height);
                node(at, height, Kind::Call(Box::new(target), arguments))
            }
        }
    }

    fn operand(&mut self) -> Result<Ast, Mistake> {
        if self.peek() != Some(b'(') {
            return self.literal();
        }
        let at = self.at;
        self.at += 1;
        let inner = self.ternary()?;
        self.expect(")")?;
        // The parenthesis belongs to the operand, so that positions point at it.
        Ok(Ast { at, ..inner })
    }

    /// A literal or a variable.
    fn literal(&mut self) -> Result<Ast, Mistake> {
        let at = self.at;
        let kind = match self.peek() {
            Some(b'[') => {
                self.at += 1;
                let elements = self.list("]")?;
                let height = highest(&elements);
                return node(at, height, Kind::Array(elements));
            }
            Some(quote @ (b'\'' | b'"')) => Kind::Text(self.string(quote)?),
            Some(b'0'..=b'9') => Kind::Number(self.number()?),
            Some(b'/') => self.regex()?,
            Some(b'$') => {
                self.at += 1;
                let name = self.identifier_part();
                if name.is_empty() {
                    self.at = at;
                    return Err(self.unexpected());
                }
                Kind::Name(format!("${name}"))
            }
            _ => match self.identifier() {
                name if name.is_empty() => return Err(self.unexpected()),
                name => match name.as_str() {
                    "true" => Kind::Bool(true),
                    "false" => Kind::Bool(false),
                    "null" => Kind::Null,
                    _ => Kind::Name(name),
                },
            },
        };
        Ok(Ast { at, height: 1, kind })
    }

    /// Expressions between commas, up to `end`.
    fn list(&mut self, end: &str) -> Result<Vec<Ast>, Mistake> {
        let mut list = Vec::new();
        if self.take(end) {
            return Ok(list);
        }
        loop {
            list.push(self.ternary()?);
            if self.take(end) {
                return Ok(list);
            }
            self.expect(",")?;
        }
    }

    /// A name that does not begin with a digit; empty if there is none.
    fn identifier(&mut self) -> String {
        let begins_with_digit = self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_digit);
        if begins_with_digit { String::new() } else { self.identifier_part() }
    }

    fn identifier_part(&mut self) -> String {
        let rest = &self.text[self.at..];
        let is_other = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'_';
        let length = rest.bytes().position(is_other).unwrap_or(rest.len());
        self.at += length;
        rest[..length].to_owned()
    }

    /// Decimal digits, perhaps a fraction, perhaps an exponent.
    fn number(&mut self) -> Result<f64, Mistake> {
        let start = self.at;
        let whole = self.digits();
        if whole > 1 && self.text.as_bytes()[start] == b'0' {
            return Err(Mistake::new(start, "Numbers do not begin with 0."));
        }
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) == Some(&b'.') && is_digit(bytes.get(self.at + 1)) {
            self.at += 1;
            self.digits();
        }
        if matches!(bytes.get(self.at), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(self.at + 1), Some(b'+' | b'-')));
            if is_digit(bytes.get(self.at + 1 + sign)) {
                self.at += 1 + sign;
                self.digits();
            }
        }
        if bytes.get(self.at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            return Err(self.unexpected());
        }
        Ok(self.text[start..self.at].parse().expect("digits, a fraction and an exponent are a double"))
    }

    fn digits(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += count;
        count
    }

    /// A string in the quotes that it begins with.
    fn string(&mut self, quote: u8) -> Result<String, Mistake> {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(length) = rest.bytes().position(|byte| byte == quote || byte == b'\\') else {
                return Err(Mistake::new(start, "unterminated string literal"));
            };
            value.push_str(&rest[..length]);
            self.at += length;
            if rest.as_bytes()[length] == quote {
                self.at += 1;
                return Ok(value);
            }
            value.push(self.escape()?);
        }
    }

    /// `\` and what follows. Whatever has no meaning of its own is refused: it would mean different
    /// things to different readers.
    fn escape(&mut self) -> Result<char, Mistake> {
        let at = self.at;
        let mut rest = self.text[at + 1..].chars();
        let escaped = rest.next();
        let (value, length) = match escaped {
            Some('n') => ('\n', 2),
            Some('r') => ('\r', 2),
            Some('t') => ('\t', 2),
            Some('b') => ('\u{8}', 2),
            Some('f') => ('\u{c}', 2),
            Some(same @ ('\\' | '\'' | '"' | '/')) => (same, 2),
            Some('u') => match unicode_escape(&self.text[at..]) {
                Some(found) => found,
                None => return Err(Mistake::new(at, "Invalid escape: '\\u'")),
            },
            Some(other) => return Err(Mistake::new(at, format!("Invalid escape: '\\{other}'"))),
            None => return Err(Mistake::new(at, "unterminated string literal")),
        };
        self.at += length;
        Ok(value)
    }

    /// `/…/flags`. A slash inside `[…]` does not end it.
    fn regex(&mut self) -> Result<Kind, Mistake> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut at = start + 1;
        let mut is_in_class = false;
        loop {
            match bytes.get(at) {
                None => return Err(Mistake::new(start, "unterminated regular expression literal")),
                Some(b'/') if !is_in_class => break,
                Some(b'\\') => at += 1,
                Some(b'[') => is_in_class = true,
                Some(b']') => is_in_class = false,
                _ => {}
            }
            at += 1;
        }
        let source = self.text[start + 1..at].to_owned();
        self.at = at + 1;
        let flags = self.identifier_part();
        if !matches!(flags.as_str(), "" | "i") {
            return Err(Mistake::new(start, "regular expressions do not support flags other than i"));
        }
        Ok(Kind::Regex { source, ignores_case: flags == "i" })
    }

    fn descend(&mut self) -> Result<(), Mistake> {
        self.depth += 1;
        if self.depth > NESTING_MAX { Err(Mistake::new(self.at, TOO_DEEP)) } else { Ok(()) }
    }

    fn skip_space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let is_other = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += rest.iter().position(is_other).unwrap_or(rest.len());
    }

    /// The byte that comes next, after space.
    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let is_next = self.text[self.at..].starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn expect(&mut self, token: &str) -> Result<(), Mistake> {
        if self.take(token) {
            return Ok(());
        }
        // What stands here may be a mistake with a name of its own.
        self.operator()?;
        Err(Mistake::new(self.at, format!("Expected '{token}'.")))
    }

    fn unexpected(&self) -> Mistake {
        match self.text[self.at..].chars().next() {
            Some('=') => self.assignment(),
            Some(other) => Mistake::new(self.at, format!("Unexpected '{other}'.")),
            None => Mistake::new(self.at, "Unexpected end of expression."),
        }
    }

    fn assignment(&self) -> Mistake {
        Mistake::new(self.at, "Rule expressions may not contain assignments.")
    }
}

/// Reads `\uXXXX`, or two of them that make a pair; returns the character and their length.
pub(super) fn unicode_escape(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex { u32::from_str_radix(digits, 16).ok() } else { None }
    };
    let first = unit(0)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 6));
    }
    let second = unit(6)?;
    let is_pair = (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(&second);
    if !is_pair {
        return None;
    }
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).map(|character| (character, 12))
}

fn highest(list: &[Ast]) -> u16 {
    list.iter().map(|ast| ast.height).max().unwrap_or(0)
}

/// A tree one level higher than its highest part.
fn node(at: usize, height_below: u16, kind: Kind) -> Result<Ast, Mistake> {
    let height = height_below + 1;
    if height > NESTING_MAX { Err(Mistake::new(at, TOO_DEEP)) } else { Ok(Ast { at, height, kind }) }
}

/// Joins two operands. Lists of `&&` and of `||` stay flat however long they are.
fn join(operator: Operator, mut left: Ast, right: Ast) -> Result<Ast, Mistake> {
    if let (Kind::All(list), Operator::And) | (Kind::Any(list), Operator::Or) = (&mut left.kind, operator) {
        let at = right.at;
        left.height = left.height.max(right.height + 1);
        list.push(right);
        return if left.height > NESTING_MAX { Err(Mistake::new(at, TOO_DEEP)) } else { Ok(left) };
    }
    let (at, height) = (left.at, left.height.max(right.height));
    let kind = match operator {
        Operator::And => Kind::All(vec![left, right]),
        Operator::Or => Kind::Any(vec![left, right]),
        _ => Kind::Binary(operator, Box::new((left, right))),
    };
    node(at, height, kind)
}
