//! The kinds of values that a setting can have, each parsed once, whoever wrote it: the command line,
//! the environment and the file share one reader a kind.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::base::Millis;

/// A value that is written as a string.
trait Text: FromStr<Err = String> {
    /// What it looks like, for who wrote a number or a list instead.
    const EXPECTED: &'static str;
}

/// Reads any [`Text`] from a string of the file.
struct FromText<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! is_text {
    ($kind:ty, $expected:literal) => {
        impl Text for $kind {
            const EXPECTED: &'static str = $expected;
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromText(PhantomData))
            }
        }
    };
}

is_text!(Duration, "a duration in quotes, such as \"20s\", \"500ms\" or \"2m\"");
is_text!(Size, "a size in quotes, such as \"512MiB\" or \"4GiB\"");
is_text!(Address, "an address in quotes, such as \"127.0.0.1:9000\"");
is_text!(LateLastWords, "\"yield\" or \"always\"");
is_text!(Durability, "\"fsync\", \"os\" or \"none\"");
is_text!(LogFormat, "\"human\" or \"json\"");
is_text!(LogLevel, "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"");
is_text!(FilePath, "a path in quotes");
is_text!(RulesDialect, "\"firebase\", \"wilddog\" or \"both\"");
is_text!(Signing, "\"RS256\", \"ES256\" or \"EdDSA\"");
is_text!(KeySource, "a path or an https address in quotes");

/// A span of time: a whole number and its unit, `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub Millis);

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit_start = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(unit_start);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" if !digits.is_empty() => {
                return Err(format!("`{text}` has no unit: write \"{digits}s\" for seconds, or use ms, m or h"));
            }
            _ => return Err(format!("`{text}` is no duration: write a whole number and a unit, such as \"20s\"")),
        };
        let count: u64 = match digits.parse() {
            Ok(count) => count,
            Err(_) if digits.is_empty() => {
                return Err(format!("`{text}` is no duration: the number is missing"));
            }
            Err(_) => return Err(format!("`{text}` is too long a time")),
        };
        count.checked_mul(unit_ms).map(|ms| Self(Millis(ms))).ok_or_else(|| format!("`{text}` is too long a time"))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An amount of memory: a whole number and its unit, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit_start = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(unit_start);
        let bytes = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
        match (digits.parse::<u64>(), bytes) {
            (Ok(count), Some(bytes)) => {
                count.checked_mul(bytes).map(Self).ok_or_else(|| format!("`{text}` is more than there is"))
            }
            (Err(_), Some(_)) if !digits.is_empty() => Err(format!("`{text}` is more than there is")),
            (Ok(_), None) if unit.is_empty() => {
                Err(format!("`{text}` has no unit: write \"{digits}MiB\", or use KiB or GiB"))
            }
            _ => Err(format!("`{text}` is no size: write a whole number and KiB, MiB or GiB, such as \"512MiB\"")),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, bytes): &&(&str, u64)| self.0.is_multiple_of(*bytes);
        let (unit, bytes) = SIZE_UNITS.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// Where to listen: an IP address and a port; port 0 means any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is no address: write an IP address and a port, such as 127.0.0.1:9000 or [::1]:9000")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A path of the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl FromStr for FilePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("the path is empty".into()) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Where an issuer's public keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// An address to fetch them from: `https`, or `http` on this machine.
    Url(String),
}

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return text.parse().map(|FilePath(path)| Self::File(path));
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // It is shown and logged.
        if authority.contains('@') {
            return Err("an address of keys holds no password".into());
        }
        let host = authority
            .strip_suffix(|c: char| c.is_ascii_digit())
            .map_or(authority, |_| authority.rsplit_once(':').map_or(authority, |(host, _)| host));
        let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        match scheme {
            _ if host.is_empty() => Err(format!("`{text}` has no host")),
            "https" => Ok(Self::Url(text.to_owned())),
            "http" if is_here => Ok(Self::Url(text.to_owned())),
            "http" => Err(format!("`{text}`: whoever stands between could put in keys of their own; use https")),
            _ => Err(format!("`{text}`: keys come from a file or over https")),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Secrets. Shows how many there are, and never what they are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<String>);

impl fmt::Display for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} given", self.0.len())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The usual messages repeat what was found.
        let expected = || D::Error::custom("expected a list of secrets in quotes");
        let toml::Value::Array(list) = toml::Value::deserialize(deserializer).map_err(|_| expected())? else {
            return Err(expected());
        };
        let texts = list.into_iter().map(|value| match value {
            toml::Value::String(text) => Ok(text),
            _ => Err(expected()),
        });
        texts.collect::<Result<_, _>>().map(Self)
    }
}

macro_rules! choices {
    ($(#[$about:meta])* $name:ident { $($(#[$variant_about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_about])* $variant,)+
        }

        impl $name {
            /// All of them, as they are written.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is none of {}", Self::WORDS.join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)+ })
            }
        }
    };
}

choices! {
    /// Whether the last words of a session that ended in silence yield to what was written to the same
    /// path after it was last heard.
    LateLastWords {
        /// They do.
        Yield = "yield",
        /// They never do.
        Always = "always",
    }
}

choices! {
    /// What a client's acknowledged write survives.
    Durability {
        /// The loss of power.
        Fsync = "fsync",
        /// The death of the process.
        Os = "os",
        /// Neither: data is in memory only.
        None = "none",
    }
}

choices! {
    /// Whose names the rules may use.
    RulesDialect {
        /// Firebase's.
        Firebase = "firebase",
        /// Wilddog's.
        Wilddog = "wilddog",
        /// Either's.
        Both = "both",
    }
}

choices! {
    /// How an issuer of tokens may sign them.
    Signing {
        /// RSA with SHA-256.
        Rs256 = "RS256",
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
        /// Ed25519.
        EdDsa = "EdDSA",
    }
}

choices! {
    /// How the log is written.
    LogFormat {
        /// Lines for people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

choices! {
    /// How much is logged: this and everything graver.
    LogLevel {
        /// What the operator must act on.
        Error = "error",
        /// What the operator should look at.
        Warn = "warn",
        /// What happens to the server as a whole.
        Info = "info",
        /// What happens to single connections.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}
