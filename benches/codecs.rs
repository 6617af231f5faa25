//! The other protocols: a device's request, a packet of Wilddog's, a REST request read; against what one would
//! write first: everything copied into maps and values.

use std::collections::BTreeMap;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::Value;
use stillhere::json::Reader;
use stillhere::wire::coap::{Code, Kind, Message, MessageId, Token, Writer, option};
use stillhere::wire::rest::Call;
use stillhere::wire::{Input, http, wilddog, ws};

fn datagram() -> Vec<u8> {
    let mut bytes = Vec::new();
    let token = Token::new(&[1, 0x45, 0x8b, 0x6b]);
    Writer::new(&mut bytes, Kind::Confirmable, Code::PUT, MessageId(77), token)
        .option(option::URI_HOST, b"myapp.wilddogio.com")
        .option(option::URI_PATH, b"status")
        .option(option::URI_PATH, b"lamp17")
        .option(option::URI_QUERY, b".cs=00AbCdEf")
        .payload(b"\x67online!");
    bytes
}

/// The values of a message's options, by number.
type Options = BTreeMap<u32, Vec<Vec<u8>>>;

/// As libraries do: each option in a map of lists, the payload copied.
fn read_into_maps(bytes: &[u8]) -> Option<(u16, Vec<u8>, Options, Vec<u8>)> {
    let (head, rest) = bytes.split_at_checked(4)?;
    let (token, mut rest) = rest.split_at_checked(usize::from(head[0] & 15))?;
    let mut options = Options::new();
    let mut number = 0;
    while let Some((&first, mut after)) = rest.split_first().filter(|(first, _)| **first != 0xff) {
        let mut field = |bits: u8| match bits {
            13 => {
                let (byte, more) = after.split_first()?;
                after = more;
                Some(u32::from(*byte) + 13)
            }
            14 | 15 => None,
            bits => Some(u32::from(bits)),
        };
        number += field(first >> 4)?;
        let length = field(first & 15)? as usize;
        let (value, more) = after.split_at_checked(length)?;
        options.entry(number).or_default().push(value.to_vec());
        rest = more;
    }
    let payload = rest.split_first().map_or(&[][..], |(_, payload)| payload);
    Some((u16::from_be_bytes([head[2], head[3]]), token.to_vec(), options, payload.to_vec()))
}

fn devices(c: &mut Criterion) {
    let mut group = c.benchmark_group("read a device's request");
    let bytes = datagram();
    let of_maps = read_into_maps(&bytes).expect("it is one");
    assert_eq!(of_maps.2.values().map(Vec::len).sum::<usize>(), 4);
    group.bench_function("where it lies", |b| {
        b.iter(|| {
            let message = Message::read(std::hint::black_box(&bytes)).expect("it is one");
            (message.id, message.options().map(|(_, value)| value.len()).sum::<usize>(), message.payload.len())
        });
    });
    group.bench_function("into maps", |b| b.iter(|| read_into_maps(std::hint::black_box(&bytes))));
    group.finish();
    let mut group = c.benchmark_group("write a device's answer");
    group.bench_function("writer", |b| b.iter(datagram));
    group.finish();
}

const PACKET: &str =
    r#"42["wd",{"t":"d","d":{"r":127,"a":"p","b":{"p":"/status/user12345","d":{"state":"online","n":5}}}}]"#;

fn packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("read a packet of Wilddog's");
    let mut reader = Reader::default();
    group.bench_function("decoder", |b| {
        let message = &PACKET[1..];
        b.iter_batched_ref(
            || message.as_bytes().to_vec(),
            |message| wilddog::decode(message, &mut reader),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("serde_json value, members picked", |b| {
        b.iter(|| {
            let message: Value = serde_json::from_str(&std::hint::black_box(PACKET)[2..]).expect("it is JSON");
            let body = &message[1]["d"]["b"];
            (message[1]["d"]["r"].as_i64(), body["p"].as_str().map(str::to_owned), body["d"].clone())
        });
    });
    group.finish();
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask a frame of 1,000 bytes");
    let text = "x".repeat(1_000);
    let mut frame = Vec::new();
    ws::write_masked(&mut frame, ws::Kind::Text, text.as_bytes(), [1, 2, 3, 4]);
    let mut frames = ws::Reader::for_server();
    group.bench_function("reader", |b| {
        b.iter_batched_ref(
            || frame.clone(),
            |frame| match frames.next(&mut Input::new(frame)) {
                Ok(Some(ws::Frame::Text(message))) => message.len(),
                other => unreachable!("{other:?}"),
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("byte by byte into a string", |b| {
        b.iter_batched_ref(
            || frame.clone(),
            |frame| {
                let mask = [frame[4], frame[5], frame[6], frame[7]];
                let bytes: Vec<u8> =
                    frame[8..].iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect();
                String::from_utf8(bytes).expect("it is text").len()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

const REQUEST: &str = "PUT /status/user12345.json?ns=app&print=silent HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n\
     Accept: */*\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n";

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("read a REST request");
    let mut heads = http::Reader::default();
    group.bench_function("reader", |b| {
        b.iter_batched_ref(
            || REQUEST.as_bytes().to_vec(),
            |bytes| {
                let mut input = Input::new(bytes);
                let head = heads.next(&mut input).expect("it is one").expect("it is all there");
                Call::read(&head)
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("split into a map of strings", |b| {
        b.iter(|| {
            let mut lines = std::hint::black_box(REQUEST).split("\r\n");
            let mut words = lines.next().expect("a request line").split(' ').map(str::to_owned);
            let (verb, target) = (words.next(), words.next().expect("a target"));
            let headers: BTreeMap<String, String> =
                lines.filter_map(|line| line.split_once(": ")).map(|(a, b)| (a.to_lowercase(), b.to_owned())).collect();
            let (path, query) = target.split_once('?').expect("a query");
            let query: BTreeMap<String, String> =
                query.split('&').filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect();
            (verb, path.trim_end_matches(".json").to_owned(), query, headers)
        });
    });
    group.finish();
}

criterion_group!(benches, devices, packets, frames, requests);
criterion_main!(benches);
