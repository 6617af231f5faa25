use serde_json::json;

use super::*;

#[track_caller]
fn check(columns: &[Column], rows: &[Value], expected: &[&str]) {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| columns.iter().map(|(_, cell)| cell(row)).collect()).collect();
    let mut widths: Vec<usize> = columns.iter().map(|(title, _)| title.len()).collect();
    assert_eq!(lines(columns, &mut widths, &rows), expected);
}

#[test]
fn sessions_and_words_stand_in_columns() {
    check(
        SESSIONS,
        &[
            json!({"session": "0.12.3", "protocol": "websocket", "uid": "ann", "ageMs": 3_725_000, "silentMs": 4_000, "words": 2}),
            json!({"session": "1.0.0", "protocol": "coap", "uid": null, "ageMs": 90_000_000, "silentMs": 61_000, "words": 0}),
            json!({"session": "1.1.0", "protocol": "stream", "uid": null, "admin": true, "ageMs": 1, "silentMs": 1, "words": 0}),
        ],
        &[
            "SESSION  PROTOCOL   USER    AGE    LAST HEARD  LAST WORDS",
            "0.12.3   websocket  ann     1h02m  4s          2",
            "1.0.0    coap       nobody  1d01h  1m01s       0",
            "1.1.0    stream     admin   0s     0s          0",
        ],
    );
    check(
        WORDS,
        &[
            json!({"session": "0.1.0", "uid": "a", "kind": "set", "path": "/s", "preview": "\"off", "cut": true, "serverValues": false}),
            json!({"session": "0.1.0", "uid": "", "kind": "update", "path": "/", "places": ["a"], "placesCount": 7}),
        ],
        &[
            "SESSION  USER      KIND    PATH  WRITES",
            "0.1.0    a         set     /s    \"off…",
            "0.1.0    somebody  update  /     7 places",
        ],
    );
}

#[test]
fn a_terminal_is_not_given_orders() {
    let row = json!({"uid": "\u{1b}[2Jann\u{9b}1m\u{202e}\r\n", "path": "/a\u{7}"});
    assert_eq!(who(&row), "\u{fffd}[2Jann\u{fffd}1m\u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(text(&row["path"]), "/a\u{fffd}");
}

#[test]
fn a_path_is_explained_in_sentences() {
    let seen = json!({
        "path": "/s/ann", "exists": true, "preview": "\"offline\"", "cut": false,
        "last": {"path": "/s/ann", "at": 5_000, "cause": "last_word", "end": "timed_out", "session": "0.1.2", "uid": "ann"},
        "below": [], "waiting": [],
        "recent": [{"became": "denied", "path": "/s/ann", "at": 1_000, "kind": "set", "end": "dropped", "session": "0.1.1",
                    "uid": null, "why": "write refused at /s/ann"}],
        "unseen": 3,
    });
    assert_eq!(
        explained(&seen, 65_000),
        [
            "/s/ann: \"offline\"",
            "last write there or above: /s/ann 1m00s ago, the last word of session (timed_out) 0.1.2 (ann)",
            "what became of last words:",
            "  denied /s/ann 1m04s ago, set of session 0.1.1 (nobody), dropped: write refused at /s/ann",
            "3 sessions with last words were not looked at",
        ]
    );
    let nothing = json!({"path": "/", "exists": false, "last": null, "unseen": 0});
    assert_eq!(explained(&nothing, 0), ["/: nothing", "last write there or above: not remembered"]);
}

#[test]
fn rates_are_those_since_the_last_look() {
    let core = |at: u64, writes: u64| {
        json!({"cores": [{"core": 0, "at": at, "sessions": {"websocket": 3, "rest": 9}, "leaving": 2, "listens": 1,
                          "requests": 2 * writes, "writes": writes, "spoken": 0, "queued": 0, "lateMs": 4}]})
    };
    let first = screen(&core(1_000, 10), None, &json!({"recent": []}), 0);
    assert_eq!(
        first.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["0", "3", "2", "1", "-", "-", "-", "0", "4", "ms"]
    );
    let second = screen(&core(3_000, 30), Some(&core(1_000, 10)), &json!({"recent": []}), 0);
    assert_eq!(
        second.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["0", "3", "2", "1", "20", "10", "0", "0", "4", "ms"]
    );
}
