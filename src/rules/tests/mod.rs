//! What the recorded cases do not say: positions, limits, unusual texts, several changes at once, and
//! that nothing an expression can be makes the reader or the evaluator fall over.

mod model;

use serde_json::json;

use crate::base::WallMillis;
use crate::data::{Draft, Node, Number, Path, Priority};
use crate::json::Reader;
use crate::op::{Identity, Index, Query};
use crate::rules::limits::{EXPRESSION_BYTES_MAX, FILE_BYTES_MAX, LEVELS_MAX, NESTING_MAX, NODES_MAX};
use crate::rules::{Ask, Change, Denial, Dialect, Ruleset, Verb, Verdict, What};

const NOW: WallMillis = WallMillis(1_700_000_000_000);

fn node(json: &str) -> Node {
    Reader::default()
        .read(&mut json.as_bytes().to_vec(), |item| Draft::from_json(item, 0))
        .expect("the test's JSON is JSON")
        .expect("the test's data can be stored")
        .resolve(&Node::Empty, NOW)
}

fn path(text: &str) -> Path {
    Path::parse(text).expect("the test's path is a path")
}

fn rules(text: &str) -> Ruleset {
    Ruleset::parse(text, Dialect::Firebase).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn identity() -> Identity {
    let token = json!({"roles": ["a", "b"], "org": {"tier": "gold", "length": 7}, "10": "ten"});
    Identity { auth: json!({"uid": "u1", "n": 1, "list": [], "token": token}), ..Identity::NOBODY }
}

/// The rules file of one `.read` at `/p/$id`, with the expression as JSON text.
fn read_rule(expression: &str) -> String {
    json!({"rules": {"p": {"$id": {".read": expression}}}}).to_string()
}

// Mistakes and their places

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    match Ruleset::parse(text, Dialect::Firebase) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => assert_eq!(error.to_string(), expected, "{text}"),
    }
}

#[test]
fn mistakes_in_the_file_have_places() {
    check_refused("{}", "1:2: Expected 'rules' property.");
    check_refused("", "1:1: Expected '{'.");
    check_refused("null", "1:1: Expected '{'.");
    check_refused("{\"rules\": 5}", "1:11: Expected '{'.");
    check_refused("{\"x\": 5}", "1:2: Expected 'rules' property.");
    check_refused("{\"rules\": {}, \"x\": 5}", "1:15: Unexpected property 'x'.");
    check_refused("{\n  \"rules\": {\n    \"a\": \"true\"\n  }\n}", "3:10: Expected '{'.");
    check_refused("{\"rules\": {\"a\": {},,}}", "1:20: Expected '\"'.");
    check_refused("{\"rules\": {, }}", "1:12: Unexpected ','.");
    check_refused("{\"rules\": {\"a\" {}}}", "1:16: Expected ':'.");
    check_refused("{\"rules\": {\"a\": {} \"b\": {}}}", "1:20: Expected ',' or '}'.");
    check_refused("{\"rules\": {}\n", "2:1: Parse error.");
    check_refused("{\"rules\": {}}\n\n x", "3:2: Parse error.");
    check_refused("{\"rules\": {}} // end\n/* open", "2:1: Parse error.");
    check_refused(
        "{\"rules\": {\"é\": {\".read\": 1}}}",
        "1:27: Invalid rule expression.  Expected 'true', 'false', or an expression string.",
    );
    check_refused(
        "{\"rules\": {\".read\": truely}}",
        "1:21: Invalid rule expression.  Expected 'true', 'false', or an expression string.",
    );
    check_refused("{\"rules\": {\".read\": true, \".read\": true}}", "1:27: Duplicate key '.read'.");
    check_refused("{\"rules\": {\"a\": {}, \"a\": {}}}", "1:21: Duplicate key 'a'.");
    check_refused("{\"rules\": {\"$a\": {\"$a\": {}}}}", "1:25: Variable '$a' is already bound above.");
    check_refused("{\"rules\": {\"$a\": {}, \"$b\": {}}}", "1:28: Cannot have multiple default rules ('$a' and '$b').");
    check_refused("{\"rules\": {\"$\": {}}}", "1:17: String can't contain \".\", \"#\", \"$\", \"/\", \"[\", or \"]\"");
    check_refused(
        "{\"rules\": {\".indexOn\": [\"a\", 1]}}",
        "1:24: Invalid indexOn expression. Must be either a string or an array of strings",
    );
    check_refused("{\"rules\": {\".read\": \"\\x\"}}", "1:22: Invalid escape: '\\x'");
    check_refused("{\"rules\": {\".read\": \"\\ud800\"}}", "1:22: Invalid escape: '\\u'");
    check_refused("{\"rules\": {\".read\": \"a\u{1}\"}}", "1:23: Parse error.");
}

#[test]
fn mistakes_in_expressions_have_places_in_the_file() {
    // After an escape and on a later line of the same string.
    check_refused("{\"rules\": {\".read\": \"\\\"a\\\" == foo\"}}", "1:31: Unknown variable 'foo'.");
    check_refused("{\"rules\": {\".read\": \"true &&\n  é\"}}", "2:3: Unexpected 'é'.");
    check_refused("{\"rules\": {\".read\": \"true &&\\n  foo\"}}", "1:33: Unknown variable 'foo'.");
    check_refused(
        &read_rule("auth != null && data.val().matches(/(a/)"),
        "1:67: Illegal regular expression, expected ')' at position 2",
    );
    check_refused(
        &read_rule("1 == data"),
        "1:37: Invalid == expression: right operand is not a number, boolean, string, or null.",
    );
    for (expression, column, expected) in [
        ("a = 1", 3, "Rule expressions may not contain assignments."),
        ("auth.x = 1", 8, "Rule expressions may not contain assignments."),
        ("auth.x += 1", 9, "Rule expressions may not contain assignments."),
        ("data.child('a' = 1)", 16, "Rule expressions may not contain assignments."),
        ("true &", 6, "Unexpected '&'."),
        ("(true", 6, "Expected ')'."),
        ("true ? true", 12, "Expected ':'."),
        ("", 1, "Unexpected end of expression."),
        ("true true", 6, "Unexpected 't'."),
        ("+1 == 1", 1, "Unexpected '+'."),
        ("1 ** 1 == 1", 4, "Unexpected '*'."),
        (".5 == 1", 1, "Unexpected '.'."),
        ("0x10 == 16", 2, "Unexpected 'x'."),
        ("010 == 10", 1, "Numbers do not begin with 0."),
        ("'a", 1, "unterminated string literal"),
        ("'\\q' == 'q'", 2, "Invalid escape: '\\q'"),
        ("true; true", 5, "Unexpected ';'."),
        ("data.child('a',) == 1", 16, "Unexpected ')'."),
        ("data.", 6, "Unexpected end of expression."),
        ("$ == 1", 1, "Unexpected '$'."),
        ("$other == 'a'", 1, "Unknown variable '$other'."),
        ("[", 2, "Unexpected end of expression."),
        ("//", 1, "Illegal regular expression, it is empty"),
    ] {
        // The expression begins at column 32.
        check_refused(&read_rule(expression), &format!("1:{}: {expected}", 31 + column));
    }
}

#[test]
fn wilddog_tools_get_numbers() {
    let code = |text: &str| Ruleset::parse(text, Dialect::Wilddog).unwrap_err().wilddog_code();
    assert_eq!(code(r#"{"rules": {"$a": {}, "$b": {}}}"#), 20_601);
    assert_eq!(code("{}"), 20_602);
}

#[test]
fn the_file_may_have_comments_and_loose_ends() {
    let text = "\u{feff}// first\n{ /* a */ \"rules\" /* b */ : { // c\n \"a\": {\".read\": true,\r\n \".indexOn\": [\"x\", // d\n \"y/z\",]}, }, }\n// end";
    let parsed = rules(text);
    assert_eq!(parsed.source(), text);
    assert!(parsed.is_indexed(&path("a"), &Index::Child(path("y/z"))));
}

// Expressions

/// Evaluates as `.read` of `/p/k`, signed in as `identity()`. `expected` is `true`, `false` or `error`.
#[track_caller]
fn check_expression(expression: &str, expected: &str) {
    let rules = rules(&read_rule(expression));
    let root = node(
        r#"{"p":{"k":{"s":"text","n":-2.5,"i":12,"t":true,"o":{"a":1},"e":"é😀","big":1e21,
            "r":{".value":1,".priority":"high"}},"other":5},"leaf":"x"}"#,
    );
    let ask = Ask { root: &root, identity: &identity(), now: NOW };
    let happened = match rules.may_read(&ask, &path("p/k"), &Query::ALL) {
        Verdict::Allowed => "true",
        Verdict::Denied(denial) if denial.rules.iter().any(|rule| rule.fail.is_some()) => "error",
        Verdict::Denied(_) => "false",
    };
    assert_eq!(happened, expected, "{expression}");
}

#[test]
fn numbers_become_texts_as_clients_write_them() {
    for (number, text) in [
        ("1", "1"),
        ("1.0", "1"),
        ("-0", "0"),
        ("1.5", "1.5"),
        ("100 * 1000 * 1000", "100000000"),
        ("1e21", "1e+21"),
        ("1e-7", "1e-7"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("1 / 0", "NaN"),
        ("5 % 0", "NaN"),
        ("1e308 * 10", "Infinity"),
        ("1 / 3", "0.3333333333333333"),
        ("data.child('n').val()", "-2.5"),
        ("data.child('i').val()", "12"),
        ("data.child('big').val()", "1e+21"),
        ("now", "1700000000000"),
    ] {
        check_expression(&format!("'' + ({number}) == '{text}'"), "true");
        check_expression(&format!("({number}) + '' == '{text}'"), "true");
    }
}

#[test]
fn literals_may_be_written_in_several_ways() {
    check_expression(r#"'it\'s' == "it's""#, "true");
    check_expression(r#"'a\n\t\u00e9\ud83d\ude00\/\\' == "a\n\té😀/\\""#, "true");
    check_expression("1e3 == 1000 && 1.5E-1 == 0.15 && 2e+0 == 2", "true");
    check_expression("'a\tb'.length == 3", "true");
    check_expression("data['child']('s')['val']()['length'] == 4", "true");
    check_expression("((((data)).child(('s'))).exists)()", "true");
    check_expression("  true\r\n\t&&\ntrue ", "true");
    check_expression("!!true", "true");
    check_expression("- -1 == 1 && 1 - -1 == 2", "true");
    check_expression("8/4/2 == 1 && 'x'.matches(/x/)", "true");
    check_expression("auth.uid == 'u1' ? data.exists() : false", "true");
}

#[test]
fn texts_are_measured_and_ordered_as_clients_do() {
    check_expression("data.child('e').val().length == 3", "true");
    check_expression("'\u{e000}' > '😀'", "true");
    check_expression("'a' < 'b' && 'a' < 'aa' && 'B' < 'a' && '10' < '9'", "true");
    check_expression("'ß'.toUpperCase() == 'SS' && 'ÀÉ'.toLowerCase() == 'àé'", "true");
    check_expression("'abab'.replace('b', '') == 'aa' && 'ab'.replace('', '-') == '-a-b-'", "true");
    check_expression("'a.b'.replace('.', '$1') == 'a$1b'", "true");
    check_expression("''.contains('') && 'a'.beginsWith('') && 'a'.endsWith('')", "true");
}

#[test]
fn places_are_found_and_left() {
    check_expression("data.child('//o//a/').val() == 1 && data.child('').exists()", "true");
    check_expression("data.child('o').parent().child('s').exists()", "true");
    check_expression("data.child('o/a').parent().hasChild('a')", "true");
    check_expression("data.child(auth.uid + '/x/y').parent().parent().parent().child('s').exists()", "true");
    check_expression("data.parent().child('other').val() == 5 && data.parent().parent().hasChild('leaf')", "true");
    check_expression("root.child('p').child($id).parent().parent().child('leaf').val() == 'x'", "true");
    check_expression("data.child(auth.uid).parent().parent().parent().child('leaf').exists()", "true");
    check_expression("(true ? data.child('o') : root).parent().child('s').exists()", "true");
    check_expression("data.parent().parent().parent().exists()", "error");
    check_expression("data.child(auth.uid).parent().parent().parent().parent().exists()", "error");
    check_expression("!root.child('x').parent().parent().exists()", "error");
    check_expression("data.child('s/deeper').exists() || data.hasChild('a..b') || data.hasChild('$k')", "false");
    check_expression("data.hasChildren(['s', 'o/a', 'n']) && !data.hasChildren(['s', 'zz'])", "true");
    check_expression("!data.hasChildren(['zz', auth.none])", "error");
}

#[test]
fn values_of_nodes_with_children_equal_nothing() {
    check_expression("data.val() != null && data.val() != 1 && 'a' != data.val()", "true");
    check_expression("data.val() == data.val() || true", "error");
    check_expression("auth != auth || true", "error");
    check_expression(
        "data.child('o').isString() || data.child('o').isNumber() || data.child('o').isBoolean()",
        "false",
    );
    check_expression("data.val().contains('a')", "error");
    check_expression("data.child('r').getPriority() == 'high' && data.child('r').isNumber()", "true");
    check_expression("data.child('r').getPriority().length == 4 && data.getPriority() == null", "true");
}

#[test]
fn claims_are_read_at_any_depth() {
    check_expression("auth.none.of.that == null && auth['no' + 'ne'] == null", "true");
    check_expression("auth.token.org.tier == 'gold' && auth['token']['or' + 'g'].tier == 'gold'", "true");
    check_expression("auth.token.roles[0] == 'a' && auth.token.roles[1] == 'b' && auth.token.roles[2] == null", "true");
    check_expression("auth.token.roles[0.5] == null && auth.token.roles[-1] == null && auth.list[1/0] == null", "true");
    check_expression("auth.token.roles['0'] == 'a'", "error");
    check_expression("auth.token.roles['' + '0'] == 'a'", "error");
    check_expression("auth.token.roles.length == 2", "error");
    check_expression("auth.token[10] == 'ten' && auth.token['1' + '0'] == 'ten'", "true");
    check_expression("auth.uid.length == 2 && auth.token.org.length == 7 && auth.token.length == null", "true");
    check_expression("auth.none.length == null", "error");
    check_expression("auth.uid.foo == null", "error");
    check_expression("auth.n.foo == null", "error");
    check_expression("auth.token[auth.none] == null", "error");
    check_expression("auth.token.roles != null && auth.list != null && auth.list[0] == null", "true");
}

#[test]
fn an_error_fails_the_whole_rule_unless_it_is_not_reached() {
    check_expression("auth.none > 1 || true", "error");
    check_expression("true || auth.none > 1", "true");
    check_expression("!(false && auth.none > 1)", "true");
    check_expression("false ? auth.none > 1 : true", "true");
    check_expression("!(auth.none > 1 ? true : true)", "error");
    check_expression("(1 > 2 ? data : 'a') == 'a'", "true");
    check_expression("(1 < 2 ? data : 'a') == 'a'", "error");
    check_expression("(true ? /a/ : 1) != 1", "error");
    check_expression("('a' == 'b' ? 1 : auth.n) - 1 == 0", "true");
    check_expression("now > 'a' || true", "error");
}

#[test]
fn dialects_differ_in_names_only() {
    let accepts = |expression: &str, dialect: Dialect| Ruleset::parse(&read_rule(expression), dialect).is_ok();
    for expression in
        ["$id.startsWith('k')", "$id.length() == 1", "data.exist()", "$id.matches('^k$')", "auth.uid.startsWith('u')"]
    {
        assert!(!accepts(expression, Dialect::Firebase), "{expression}");
        assert!(accepts(expression, Dialect::Wilddog) && accepts(expression, Dialect::Both), "{expression}");
    }
    let common = "$id.beginsWith('k') && $id.length == 1 && $id.matches(/k/i)";
    assert!(accepts(common, Dialect::Firebase) && accepts(common, Dialect::Wilddog));
    for dialect in [Dialect::Wilddog, Dialect::Both] {
        assert!(!accepts("$id.matches(auth.uid)", dialect) && !accepts("$id.matches('(a')", dialect));
        assert!(!accepts("$id % 2 == 0", dialect));
    }
}

// Writes

enum Put<'a> {
    Value(&'a str, &'a str),
    Priority(&'a str, Option<i64>),
}

fn judge(rules: &Ruleset, root: &str, puts: &[Put<'_>]) -> Verdict {
    enum Held {
        Value(Node),
        Priority(Option<Priority>),
    }
    let root = node(root);
    let held: Vec<(Path, Held)> = puts
        .iter()
        .map(|put| match put {
            Put::Value(at, json) => (path(at), Held::Value(node(json))),
            Put::Priority(at, number) => {
                (path(at), Held::Priority(number.map(|number| Priority::Number(Number::Int(number)))))
            }
        })
        .collect();
    let changes: Vec<Change<'_>> = held
        .iter()
        .map(|(path, held)| Change {
            path,
            what: match held {
                Held::Value(node) => What::Value(node),
                Held::Priority(priority) => What::Priority(priority.as_ref()),
            },
        })
        .collect();
    rules.may_write(&Ask { root: &root, identity: &identity(), now: NOW }, &changes)
}

/// `expected` is empty, or how the denial begins.
#[track_caller]
fn check_write(text: &str, root: &str, puts: &[Put<'_>], expected: &str) {
    let told = match judge(&rules(text), root, puts) {
        Verdict::Allowed => String::new(),
        Verdict::Denied(denial) => denial.to_string(),
    };
    assert!(told.starts_with(expected) && told.is_empty() == expected.is_empty(), "{told:?} for {expected:?}: {text}");
}

const VALID: &str = r#"{"rules": {
    ".validate": "newData.child('must').exists()",
    "a": {".write": true, ".validate": "newData.hasChildren(['x'])",
          "x": {".validate": "newData.isNumber()"},
          "$other": {".validate": "newData.getPriority() == null", "deep": {".validate": "newData.val() == $other"}}},
    "must": {".write": "newData.exists()"}
}}"#;

#[test]
fn a_write_is_valid_above_at_and_below_its_place() {
    let root = r#"{"must":1,"a":{"x":1,"k":{"deep":"k"}}}"#;
    check_write(VALID, root, &[Put::Value("a/x", "2")], "");
    check_write(VALID, root, &[Put::Value("a/x", "\"2\"")], ".validate refused at /a/x");
    check_write(VALID, root, &[Put::Value("a", "null")], "");
    check_write(VALID, root, &[Put::Value("a", r#"{"k":{}}"#)], "");
    check_write(VALID, root, &[Put::Value("a", r#"{"k":1}"#)], ".validate refused at /a");
    check_write(VALID, root, &[Put::Value("a", r#"{"x":1,"k":{"deep":"z"}}"#)], ".validate refused at /a/k/deep");
    check_write(VALID, root, &[Put::Value("a/k/deep", "\"k\"")], "");
    check_write(VALID, root, &[Put::Value("a/z/deep", "\"k\"")], ".validate refused at /a/z/deep");
    check_write(VALID, root, &[Put::Value("a/x", "null")], ".validate refused at /a");
    check_write(VALID, r#"{"must":1,"a":{"x":1}}"#, &[Put::Value("a/x", "null")], "");
    check_write(VALID, "null", &[Put::Value("a", r#"{"x":1}"#)], ".validate refused at /;");
    check_write(VALID, root, &[Put::Value("must", "null")], ".write refused at /must; 6:24 at /must: newData.exists()");
    check_write(VALID, root, &[Put::Value("b", "1")], ".write refused at /b: no rule grants it");
    check_write(VALID, root, &[Put::Value("", r#"{"must":1}"#)], ".write refused at /: no rule grants it");
}

#[test]
fn the_changes_of_an_update_are_seen_together() {
    let both = [Put::Value("a/x", "1"), Put::Value("must", "5")];
    check_write(VALID, "null", &both, "");
    check_write(VALID, "null", &[Put::Value("must", "5"), Put::Value("a/y", "1")], ".validate refused at /a;");
    check_write(
        VALID,
        "null",
        &[Put::Value("a/x", "1"), Put::Value("a/y", "1"), Put::Value("b", "1")],
        ".validate refused at /;",
    );
    check_write(
        VALID,
        "null",
        &[Put::Value("a/x", "1"), Put::Value("b", "1"), Put::Value("must", "1")],
        ".write refused at /b",
    );
    check_write(VALID, "null", &[], "");
}

#[test]
fn a_priority_is_checked_like_a_write_of_its_node_alone() {
    let root = r#"{"must":1,"a":{"x":1,"k":{"deep":"wrong"}}}"#;
    check_write(VALID, root, &[Put::Priority("a", Some(1))], "");
    check_write(VALID, root, &[Put::Priority("a/k", None)], "");
    check_write(VALID, root, &[Put::Priority("a/k", Some(3))], ".validate refused at /a/k");
    check_write(VALID, root, &[Put::Priority("b", Some(3))], ".write refused at /b");
    check_write(VALID, "null", &[Put::Priority("a/k", Some(3))], "");
}

#[test]
fn permission_is_looked_for_from_the_root_with_data_at_each_rule() {
    let text = r#"{"rules": {"a": {".write": "data.child('owner').val() == auth.uid && newData.child('b/c').val() == 2",
        "b": {".write": "newData.val() == 1"}}}}"#;
    check_write(text, r#"{"a":{"owner":"u1"}}"#, &[Put::Value("a/b/c", "2")], "");
    check_write(
        text,
        r#"{"a":{"owner":"u2"}}"#,
        &[Put::Value("a/b/c", "2")],
        ".write refused at /a/b/c; 1:28 at /a: data",
    );
    check_write(text, "null", &[Put::Value("a/b", "1")], "");
}

#[test]
fn administrators_and_nobody() {
    let (root, admin, nobody) = (node("{\"a\":1}"), Identity::ADMIN, Identity::NOBODY);
    let (here, new) = (path("a"), node("2"));
    let change = [Change { path: &here, what: What::Value(&new) }];
    for (rules, identity, expected) in [
        (Ruleset::closed(), &admin, true),
        (Ruleset::closed(), &nobody, false),
        (Ruleset::open(), &nobody, true),
        (rules(r#"{"rules": {}}"#), &nobody, false),
    ] {
        let ask = Ask { root: &root, identity, now: NOW };
        assert_eq!(rules.may_read(&ask, &here, &Query::ALL).is_allowed(), expected);
        assert_eq!(rules.may_write(&ask, &change).is_allowed(), expected);
        assert_eq!(rules.may_write_at(&ask, &here).is_allowed(), expected);
    }
}

#[test]
fn a_denial_says_which_rules_were_not_true_and_why() {
    let text = "{\"rules\": {\".read\": \"auth.none > 1\",\n \"a\": {\"$k\": {\".read\": \"$k == 'z'\"}}}}";
    let root = Node::Empty;
    let ask = Ask { root: &root, identity: &identity(), now: NOW };
    let Verdict::Denied(denial) = rules(text).may_read(&ask, &path("a/b/c"), &Query::ALL) else { panic!("allowed") };
    let Denial { path, verb, rules, is_out_of_steps } = *denial;
    assert_eq!((path.as_str(), verb, rules.len(), is_out_of_steps), ("a/b/c", Verb::Read, 2, false));
    assert_eq!((rules[0].path.as_str(), rules[0].line, rules[0].column), ("", 1, 21));
    assert_eq!((rules[1].path.as_str(), rules[1].line, rules[1].column), ("a/b", 2, 24));
    assert!(rules[0].fail.is_some() && rules[1].fail.is_none());
    assert_eq!(&*rules[1].source, "$k == 'z'");
}

// What a check depends on

#[test]
fn what_a_decision_looks_into_is_known_beforehand() {
    let rules = rules(
        r#"{"rules": {
            ".read": "auth.admin == true",
            "a": {".write": "auth != null", "$k": {".read": "data.child('x').exists()", ".validate": "newData.exists()",
                "up": {".write": "newData.parent().parent().exists()"}, "c": {".read": "data.child($k).parent().exists()"}}},
            "b": {"$k": {".write": "root.child('x').exists()", ".read": "now > 1 && $k == 'a'"}},
            "c": {"d": {"e": {".write": true, "f": {".validate": "data.parent().parent().exists()"}}}}
        }}"#,
    );
    let reach = |at: &str| (rules.read_reach(&path(at)), rules.write_reach(&path(at)));
    assert_eq!(reach("a"), (None, Some(2)));
    assert_eq!(reach("a/b"), (Some(2), Some(2)));
    assert_eq!(reach("a/b/up"), (Some(2), Some(1)));
    assert_eq!(reach("a/b/c"), (Some(2), Some(2)));
    assert_eq!(reach("b/k"), (None, Some(0)));
    assert_eq!(reach("c/d/e"), (None, Some(2)));
    assert_eq!(reach("c/d/e/g/h"), (None, None));
    assert!(rules.read_depends_on_data(&path("a/b")) && !rules.read_depends_on_data(&path("b/k")));
}

#[test]
fn indexes_belong_to_their_node() {
    let rules = rules(r#"{"rules": {"a": {"$k": {".indexOn": ["x/y", ".value"]}}, ".indexOn": "top"}}"#);
    let child = |text: &str| Index::Child(path(text));
    assert!(rules.is_indexed(&path("a/k"), &child("x/y")) && rules.is_indexed(&path("a/k"), &Index::Value));
    assert!(!rules.is_indexed(&path("a"), &child("x/y")) && !rules.is_indexed(&path("a/k/z"), &Index::Value));
    assert!(rules.is_indexed(&Path::ROOT, &child("top")) && !rules.is_indexed(&Path::ROOT, &child("x")));
    assert!(rules.is_indexed(&path("q"), &Index::Key) && rules.is_indexed(&path("q"), &Index::Priority));
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let warnings = |expression: &str| {
        let parsed = rules(&read_rule(expression));
        parsed.warnings().iter().map(|warning| (warning.line, warning.column)).collect::<Vec<_>>()
    };
    assert_eq!(warnings("true || $id.matches(/^(?:a)$/)"), [(1, 31 + 21)]);
    assert_eq!(warnings("$id.matches(/\\bx/)"), [(1, 31 + 13)]);
    assert_eq!(warnings("$id.matches(/^[\\w\\-.]+$/)"), []);
}

// Limits

#[test]
fn nesting_is_limited_and_lists_are_not_nesting() {
    let nested = |open: &str, middle: &str, close: &str, count: usize| {
        let expression = format!("{}{middle}{}", open.repeat(count), close.repeat(count));
        Ruleset::parse(&read_rule(&expression), Dialect::Firebase).map(drop).map_err(|error| error.text)
    };
    let too_deep = || Err("Expression is nested too deeply.".to_owned());
    let most = usize::from(NESTING_MAX);
    assert_eq!(nested("(", "true", ")", most - 2), Ok(()));
    assert_eq!(nested("(", "true", ")", most), too_deep());
    assert_eq!(nested("!", "true", "", most + 1), too_deep());
    assert_eq!(nested("", "auth.a == 1", "", 1), Ok(()));
    assert_eq!(nested("", "auth", ".a", most), too_deep());
    assert_eq!(nested("", "1", "+1", most), too_deep());
    assert_eq!(nested("auth[", "1", "]", most), too_deep());
    assert_eq!(nested("true ? true : ", "true", "", most), too_deep());
    assert_eq!(nested("", "true", " && auth != null", 2_000), Ok(()));
    assert_eq!(nested("", "true", " || $id == 'a'", 2_000), Ok(()));
    assert_eq!(nested("(", "", "", EXPRESSION_BYTES_MAX), too_deep());
    let long = format!("'{}' == 'a'", "x".repeat(EXPRESSION_BYTES_MAX));
    assert_eq!(nested("", &long, "", 1), Err("Expression is too long.".to_owned()));
}

#[test]
fn files_are_limited() {
    let levels = |count: usize| format!("{{\"rules\":{}{}}}", "{\"a\":".repeat(count) + "{}", "}".repeat(count));
    assert!(Ruleset::parse(&levels(LEVELS_MAX), Dialect::Firebase).is_ok());
    let error = Ruleset::parse(&levels(LEVELS_MAX + 1), Dialect::Firebase).unwrap_err();
    assert_eq!(error.text, "The rules are nested too deeply.");
    let error = Ruleset::parse(&levels(100_000), Dialect::Firebase).unwrap_err();
    assert_eq!(error.text, "The rules are nested too deeply.");
    let many: String = (0..NODES_MAX).map(|index| format!("\"{index:x}\":{{}},")).collect();
    let error = Ruleset::parse(&format!("{{\"rules\":{{{many}}}}}"), Dialect::Firebase).unwrap_err();
    assert_eq!(error.text, "The rules have too many nodes.");
    let error = Ruleset::parse(&" ".repeat(FILE_BYTES_MAX + 1), Dialect::Firebase).unwrap_err();
    assert_eq!(error.text, "The rules are too long.");
}

#[test]
fn a_request_has_a_budget() {
    let text = r#"{"rules": {".write": true, "$k": {".validate": "!root.child('big').val().contains('yes')"}}}"#;
    let mut root = Node::Empty;
    root.set("big", Node::text(&"no".repeat(2 * 1024 * 1024)));
    let identity = identity();
    let ask = Ask { root: &root, identity: &identity, now: NOW };
    let judge = |count: usize| {
        let members: Vec<String> = (0..count).map(|index| format!("\"k{index}\":1")).collect();
        let (here, new) = (Path::ROOT, node(&format!("{{{}}}", members.join(","))));
        let changes = [Change { path: &here, what: What::Value(&new) }];
        rules(text).may_write(&ask, &changes)
    };
    assert!(judge(8).is_allowed());
    let Verdict::Denied(denial) = judge(200) else { panic!("allowed") };
    assert!(denial.is_out_of_steps);
}

#[test]
fn built_texts_are_limited() {
    let doubled = "data.child('big').val().replace('n', data.child('big').val()) == 'x' || true";
    let rules = rules(&read_rule(doubled));
    let mut root = Node::Empty;
    root.set("p/k/big", Node::text(&"no".repeat(4_000)));
    let ask = Ask { root: &root, identity: &identity(), now: NOW };
    let Verdict::Denied(denial) = rules.may_read(&ask, &path("p/k"), &Query::ALL) else { panic!("allowed") };
    assert_eq!(denial.rules[0].fail, Some(crate::rules::Fail::TextTooLong));
}
