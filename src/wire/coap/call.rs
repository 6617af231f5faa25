//! What a request wants (Wilddog wire specification for devices, section 3).

use std::borrow::Cow;

use super::{Block, Code, Message, option};
use crate::base::limits::NAMESPACE_BYTES_MAX;
use crate::data::Path;

/// A request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'m> {
    /// The database; `None` if the request names none.
    pub namespace: Option<Cow<'m, str>>,
    /// By what the client knows its session (`.cs`); `None`: a plain client.
    pub name: Option<&'m [u8]>,
    /// What it wants.
    pub what: What<'m>,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What<'m> {
    /// `POST /.cs`: a session, or another name and identity for the one there is.
    Begin {
        /// The token; empty: nobody.
        credential: &'m [u8],
    },
    /// `GET /.ping`: still here.
    Ping,
    /// `GET /.ping?seq=NN` of the oldest versions.
    Count(u32),
    /// `POST /.rst`: still here, perhaps elsewhere.
    Return {
        /// The long name.
        pass: &'m [u8],
    },
    /// `GET /.off`: gone.
    Leave,
    /// Something about the tree.
    Data {
        /// Where.
        path: Path,
        /// What.
        data: Data,
        /// What the answer is to be.
        form: Form,
        /// What the payload is.
        payload_form: Form,
    },
}

/// Something about the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Read.
    Get,
    /// Read, and go on telling.
    Observe,
    /// Stop telling.
    Unobserve,
    /// Write.
    Write(Method),
    /// Write when the session is over.
    LastWord(Method),
    /// Do not.
    CancelLastWords,
}

/// How something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Replace what is there.
    Set,
    /// Add a child whose key the server makes.
    Push,
    /// Remove what is there.
    Remove,
}

/// How values are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For the SDK.
    Device,
    /// Content-Format 60.
    Cbor,
    /// Content-Format 50.
    Json,
}

impl Form {
    /// Its Content-Format; `None`: the SDK knows no such option.
    #[must_use]
    pub const fn number(self) -> Option<u32> {
        match self {
            Self::Device => None,
            Self::Cbor => Some(60),
            Self::Json => Some(50),
        }
    }

    const fn of_number(number: u32) -> Option<Self> {
        match number {
            60 => Some(Self::Cbor),
            // Text is taken for JSON, as browsers' tools send it.
            50 | 0 => Some(Self::Json),
            _ => None,
        }
    }
}

/// The options that matter.
#[derive(Default)]
struct Said<'m> {
    host: Option<&'m str>,
    ns: Option<&'m str>,
    path: String,
    observe: Option<u32>,
    name: Option<&'m [u8]>,
    dis: Option<&'m str>,
    count: Option<&'m str>,
    content_format: Option<u32>,
    accept: Option<u32>,
}

impl<'m> Call<'m> {
    /// Understands a request.
    ///
    /// # Errors
    /// The code to answer it with.
    pub fn read(message: &Message<'m>) -> Result<Self, Code> {
        let said = Said::read(message)?;
        let namespace = said.namespace()?;
        let name = said.name;
        let what = What::read(message, &said)?;
        Ok(Self { namespace, name, what })
    }

    /// Whether this asks about the session, not about the tree.
    #[must_use]
    pub const fn is_about_session(&self) -> bool {
        !matches!(self.what, What::Data { .. })
    }
}

impl<'m> Said<'m> {
    fn read(message: &Message<'m>) -> Result<Self, Code> {
        let text = |value| std::str::from_utf8(value).map_err(|_| Code::BAD_REQUEST);
        let mut said = Self::default();
        for (number, value) in message.options() {
            match number {
                option::URI_HOST => said.host = Some(text(value)?),
                option::OBSERVE => said.observe = uint(value),
                option::URI_PATH => {
                    let segment = text(value)?;
                    if segment.contains('/') {
                        return Err(Code::BAD_REQUEST);
                    }
                    if !segment.is_empty() {
                        said.path.push('/');
                        said.path.push_str(segment);
                    }
                }
                option::CONTENT_FORMAT => said.content_format = Some(uint(value).ok_or(Code::BAD_OPTION)?),
                option::ACCEPT => said.accept = Some(uint(value).ok_or(Code::BAD_OPTION)?),
                option::URI_QUERY => match value {
                    [b'.', b'c', b's', b'=', name @ ..] => said.name = Some(name),
                    [b'.', b'd', b'i', b's', b'=', dis @ ..] => said.dis = Some(text(dis)?),
                    [b'n', b's', b'=', ns @ ..] => said.ns = Some(text(ns)?),
                    [b's', b'e', b'q', b'=', count @ ..] => said.count = Some(text(count)?),
                    // "The server MUST ignore unknown items."
                    _ => {}
                },
                option::URI_PORT => {}
                option::BLOCK1 | option::BLOCK2 if Block::read(value).is_some() => {}
                // RFC 7252 section 5.4.1: odd numbers are critical: what is not understood is refused.
                number if number % 2 == 1 => return Err(Code::BAD_OPTION),
                _ => {}
            }
        }
        Ok(said)
    }

    /// `ns`, else the first label of the host, which has no case, unless the host is an address.
    fn namespace(&self) -> Result<Option<Cow<'m, str>>, Code> {
        let name = match (self.ns, self.host) {
            (Some(ns), _) => Cow::Borrowed(ns),
            (None, Some(host)) => {
                let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
                if is_address {
                    return Ok(None);
                }
                let label = host.split('.').next().unwrap_or_default();
                if label.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    Cow::Owned(label.to_ascii_lowercase())
                } else {
                    Cow::Borrowed(label)
                }
            }
            (None, None) => return Ok(None),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_good = !name.is_empty() && name.len() <= NAMESPACE_BYTES_MAX && name.bytes().all(is_name);
        if is_good { Ok(Some(name)) } else { Err(Code::BAD_REQUEST) }
    }
}

impl<'m> What<'m> {
    fn read(message: &Message<'m>, said: &Said<'m>) -> Result<Self, Code> {
        if said.path.starts_with("/.") {
            return match (message.code, said.path.as_str()) {
                (Code::POST, "/.cs") => Ok(Self::Begin { credential: message.payload }),
                (Code::GET, "/.ping") => match said.count.map(str::parse) {
                    Some(Ok(count)) if said.name.is_none() => Ok(Self::Count(count)),
                    _ => Ok(Self::Ping),
                },
                (Code::POST, "/.rst") => Ok(Self::Return { pass: message.payload }),
                (Code::GET, "/.off") => Ok(Self::Leave),
                (_, "/.cs" | "/.ping" | "/.rst" | "/.off") => Err(Code::METHOD_NOT_ALLOWED),
                _ => Err(Code::NOT_FOUND),
            };
        }
        let path = Path::parse(&said.path).map_err(|_| Code::BAD_REQUEST)?;
        let data = match (message.code, said.dis, said.observe) {
            (Code::GET, _, Some(0)) => Data::Observe,
            (Code::GET, _, Some(1)) => Data::Unobserve,
            (Code::GET, ..) => Data::Get,
            (code, None, _) => Data::Write(method(code)?),
            (code, Some("add"), _) => Data::LastWord(method(code)?),
            (Code::DELETE, Some("rm"), _) => Data::CancelLastWords,
            _ => return Err(Code::BAD_REQUEST),
        };
        let (form, payload_form) = if said.name.is_some() {
            (Form::Device, Form::Device)
        } else {
            let known = |number: Option<u32>, refusal| match number {
                None => Ok(None),
                Some(number) => Form::of_number(number).ok_or(refusal).map(Some),
            };
            let payload_form = known(said.content_format, Code::UNSUPPORTED_FORMAT)?;
            let form = known(said.accept, Code::NOT_ACCEPTABLE)?;
            (form.unwrap_or(Form::Json), payload_form.unwrap_or(Form::Json))
        };
        Ok(Self::Data { path, data, form, payload_form })
    }
}

const fn method(code: Code) -> Result<Method, Code> {
    match code {
        Code::PUT => Ok(Method::Set),
        Code::POST => Ok(Method::Push),
        Code::DELETE => Ok(Method::Remove),
        _ => Err(Code::METHOD_NOT_ALLOWED),
    }
}

/// An option that is a number; `None` if it is longer than any that is known here.
fn uint(value: &[u8]) -> Option<u32> {
    (value.len() <= 3).then(|| value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}
