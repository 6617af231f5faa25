use std::io::Cursor;

use super::leaves::Leaves;

/// Reads a document a few bytes at a time and shows what comes out: `path=value` each.
fn shown(text: &str, piece_bytes: usize) -> Result<String, String> {
    struct Pieces<'t>(Cursor<&'t [u8]>, usize);
    impl std::io::Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let count = out.len().min(self.1);
            self.0.read(&mut out[..count])
        }
    }
    let mut leaves = Leaves::new(Pieces(Cursor::new(text.as_bytes()), piece_bytes));
    let mut all = Vec::new();
    while let Some(leaf) = leaves.next().map_err(|refused| refused.to_string())? {
        all.push(format!("{}={}", String::from_utf8_lossy(&leaf.path), String::from_utf8_lossy(&leaf.value)));
    }
    Ok(all.join(" "))
}

#[track_caller]
fn check(text: &str, expected: &str) {
    for piece_bytes in [1, 2, 3, 1_000] {
        assert_eq!(shown(text, piece_bytes).as_deref(), Ok(expected), "{text}, {piece_bytes} at a time");
    }
}

#[track_caller]
fn check_bad(text: &str, expected: &str) {
    for piece_bytes in [1, 1_000] {
        let told = shown(text, piece_bytes).expect_err(text);
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn documents_become_values_with_their_paths() {
    check("7", "=7");
    check(" null ", "=null");
    check("{}", "");
    check(r#"{"a":1,"b":{"c":true,"d":{}},"e":null}"#, "a=1 b/c=true");
    check(r#"{ "a" : [ 1 , null , "x" , {"y":-2.5e3} ] }"#, r#"a/0=1 a/2="x" a/3/y=-2.5e3"#);
    check(r#"{"a":"q\"{[,\\"}"#, r#"a="q\"{[,\\""#);
    check(r#"{"a":{".value":1,".priority":"p"}}"#, r#"a={".value":1,".priority":"p"}"#);
    check(r#"{"a":{".priority":5,"b":1}}"#, "a/b=1 a/.priority=5");
    check(r#"{"a":{".priority":5}}"#, "");
    check(r#"{"b":1,".priority":2}"#, "b=1 .priority=2");
    check(
        r#"{"t":{".sv":"timestamp"},"n":{".sv":{"increment":1}}}"#,
        r#"t={".sv":"timestamp"} n={".sv":{"increment":1}}"#,
    );
    check(r#"{"\u0061\"":{"b":1}}"#, r#"\u0061\"/b=1"#);
}

#[test]
fn what_is_no_document_is_told_with_its_place() {
    check_bad("", "it ends too early");
    check_bad(r#"{"a":1"#, "byte 6 of the file: it ends too early");
    check_bad(r#"{"a" 1}"#, "a colon is missing");
    check_bad(r#"{"a":1 "b":2}"#, "a comma is missing");
    check_bad(r#"{a:1}"#, "a name is missing");
    check_bad(r#"{"a":}"#, "a value is missing");
    check_bad("1 2", "something stands behind the document");
    check_bad(r#"{"a":"x"#, "a string does not end");
    check_bad(r#"{"a/b":1}"#, "a slash");
    check_bad(r#"{"a\u002fb":1}"#, "a slash");
    check_bad(r#"{"":1}"#, "empty");
    check_bad(&"[".repeat(40), "nested too deeply");
}
