//! The session of a device, as it is written down.
//!
//! The surprising idea: there is one record, and it always tells everything. A session is short, and
//! whatever changes in it changes seldom, so the last record of a session is the session.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::codec::{Take, put_identity, put_size, put_text};
use super::record::Bad;
use crate::data::Path;
use crate::op::{Identity, Namespace};

/// A device's session. What its parts mean to the protocol is the engine's business.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptDevice {
    /// What its last words are written down under: no client ever learns it.
    pub secret: u128,
    /// The shard that is home to it.
    pub home: u8,
    /// Which database.
    pub namespace: Namespace,
    /// By what its client knows it; `None`: by nothing but its address.
    pub name: Option<KeptName>,
    /// By what its client knew it.
    pub old_name: Option<u64>,
    /// What becomes of it when another name is first used.
    pub candidate: Option<Box<KeptCandidate>>,
    /// Who it is.
    pub identity: Identity,
    /// Where its client is.
    pub remote: SocketAddr,
    /// At which of our addresses its client reaches us; unspecified where the socket says it.
    pub local: Ipv4Addr,
    /// What its client has shown, as bits of the engine's own.
    pub flags: u8,
    /// Last words whose keys are made when they are spoken.
    pub pushes: Vec<Path>,
    /// What it observes.
    pub watches: Vec<KeptWatch>,
    /// Whether it has left last words. Not written down: the words are.
    pub has_words: bool,
}

/// A name, and the secret that was given out with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeptName {
    /// Its bits.
    pub name: u64,
    /// The secret.
    pub secret: u128,
}

/// Never prints what would let others speak for the session: debug output ends in logs.
impl std::fmt::Debug for KeptName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptName(…)")
    }
}

/// A name that nobody has used yet.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptCandidate {
    /// It.
    pub name: KeptName,
    /// Who the session is once it is used.
    pub identity: Identity,
    /// Where it was sent to.
    pub remote: SocketAddr,
    /// Whether the client has begun anew.
    pub is_reborn: bool,
}

/// Something that is observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptWatch {
    /// Ours for it.
    pub tag: u64,
    /// The client's for it: up to 8 bytes.
    pub token: Vec<u8>,
    /// Where.
    pub path: Path,
    /// How values are written for it, as a number of the engine's own.
    pub form: u8,
    /// No notification has had a number beyond this one.
    pub sequence_max: u32,
}

const V4: u8 = 4;
const V6: u8 = 6;

fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(V4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(V6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}

fn put_name(out: &mut Vec<u8>, KeptName { name, secret }: KeptName) {
    out.extend_from_slice(&name.to_le_bytes());
    out.extend_from_slice(&secret.to_le_bytes());
}

fn put_maybe<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// Appends the body of a record.
pub(super) fn put(out: &mut Vec<u8>, device: &KeptDevice) {
    out.extend_from_slice(&device.secret.to_le_bytes());
    out.push(device.home);
    put_text(out, &device.namespace);
    put_maybe(out, device.name, put_name);
    put_maybe(out, device.old_name, |out, name| out.extend_from_slice(&name.to_le_bytes()));
    put_maybe(out, device.candidate.as_deref(), |out, candidate| {
        put_name(out, candidate.name);
        put_identity(out, &candidate.identity);
        put_address(out, candidate.remote);
        out.push(u8::from(candidate.is_reborn));
    });
    put_identity(out, &device.identity);
    put_address(out, device.remote);
    out.extend_from_slice(&device.local.octets());
    out.push(device.flags);
    put_size(out, device.pushes.len());
    device.pushes.iter().for_each(|path| put_text(out, path.as_str()));
    put_size(out, device.watches.len());
    for KeptWatch { tag, token, path, form, sequence_max } in &device.watches {
        out.extend_from_slice(&tag.to_le_bytes());
        put_size(out, token.len());
        out.extend_from_slice(token);
        put_text(out, path.as_str());
        out.push(*form);
        out.extend_from_slice(&sequence_max.to_le_bytes());
    }
}

/// Takes the body of a record.
pub(super) fn take(body: &mut Take<'_>) -> Result<KeptDevice, Bad> {
    Ok(KeptDevice {
        secret: body.u128()?,
        home: body.byte()?,
        namespace: body.text()?.into(),
        name: if body.flag()? { Some(take_name(body)?) } else { None },
        old_name: if body.flag()? { Some(body.u64()?) } else { None },
        candidate: if body.flag()? { Some(Box::new(take_candidate(body)?)) } else { None },
        identity: body.identity()?,
        remote: take_address(body)?,
        local: take_v4(body)?,
        flags: body.byte()?,
        pushes: (0..body.size()?).map(|_| body.path()).collect::<Result<_, _>>()?,
        watches: (0..body.size()?).map(|_| take_watch(body)).collect::<Result<_, _>>()?,
        has_words: false,
    })
}

fn take_candidate(body: &mut Take<'_>) -> Result<KeptCandidate, Bad> {
    Ok(KeptCandidate {
        name: take_name(body)?,
        identity: body.identity()?,
        remote: take_address(body)?,
        is_reborn: body.flag()?,
    })
}

fn take_watch(body: &mut Take<'_>) -> Result<KeptWatch, Bad> {
    let tag = body.u64()?;
    let token_bytes = body.size()?;
    let token = body.bytes(token_bytes)?.to_vec();
    if token.len() > 8 {
        return Err(Bad::Value);
    }
    Ok(KeptWatch { tag, token, path: body.path()?, form: body.byte()?, sequence_max: body.u32()? })
}

fn take_name(body: &mut Take<'_>) -> Result<KeptName, Bad> {
    Ok(KeptName { name: body.u64()?, secret: body.u128()? })
}

fn take_v4(body: &mut Take<'_>) -> Result<Ipv4Addr, Bad> {
    Ok(Ipv4Addr::from(body.array::<4>()?))
}

fn take_address(body: &mut Take<'_>) -> Result<SocketAddr, Bad> {
    let ip = match body.byte()? {
        V4 => IpAddr::V4(take_v4(body)?),
        V6 => IpAddr::V6(Ipv6Addr::from(body.array::<16>()?)),
        _ => return Err(Bad::Value),
    };
    Ok(SocketAddr::new(ip, u16::from_le_bytes(body.array()?)))
}
