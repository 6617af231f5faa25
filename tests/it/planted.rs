//! The list of planted bugs fits the source: each stands there once, in what the ones before it have left.

use std::collections::BTreeMap;

use crate::source;

#[test]
fn every_bug_can_be_planted() {
    let list = source::read("tests/mutants/list");
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut misfits = Vec::new();
    let mut count = 0;
    for (index, entry) in list.split("\n== ").skip(1).enumerate() {
        let (head, body) = entry.split_once('\n').expect("an entry has a text");
        let (place, why) = head.split_once(": ").expect("an entry says what goes wrong");
        let (_room, file) = place.split_once(' ').expect("an entry names its room and its file");
        let (before, after) = body.trim_end().split_once("\n->\n").expect("an entry has a text and one with the bug");
        let text = texts.entry(file.to_owned()).or_insert_with(|| source::read(file));
        let found = text.matches(before).count();
        if found == 1 && after.contains("PLANTED") {
            *text = text.replace(before, &after.replace("PLANTED", &format!("crate::planted({})", index + 1)));
        } else {
            misfits.push(format!("{file}: {why}: its text stands there {found} times"));
        }
        count += 1;
    }
    assert!(misfits.is_empty(), "{misfits:#?}");
    assert!(count > 100, "{count} bugs: the list is not read as it is written");
}
