//! Every rule of decision names its tests, both kinds of them.

use crate::repo::{Doc, Names, between, same, sources};

/// The rules, by their numbers.
const RULES: &[&str] = &[
    "1a", "1b", "1c", "1d", "1e", "1f", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11",
];
/// Not in force yet, so the running system has nothing to show.
const NOT_YET: &str = "1f";

#[test]
fn every_rule_of_decision_names_its_tests() {
    let table = Doc::at("docs/ARCHITECTURE.md").section("Rules of decision");
    let rows = table.rows();
    let named: Names = rows.iter().map(|cells| cells[0].to_owned()).collect();
    let rules: Names = RULES.iter().map(|&rule| rule.to_owned()).collect();
    same("rules of decision", &named, &rules);
    let pure = sources("flow/") + &sources("aggregator/");
    let running = sources("e2e/") + &sources("aggregator/");
    for cells in rows {
        let [rule, _, cases, system] = cells[..] else {
            panic!("{cells:?} has not four cells");
        };
        assert!(tests(cases, &pure) > 0, "rule {rule} names no case");
        let shown = tests(system, &running);
        assert_eq!(shown == 0, rule == NOT_YET, "rule {rule}: {system}");
    }
}

/// How many tests a cell names; each must be one in `code`.
fn tests(cell: &str, code: &str) -> usize {
    let names: Vec<&str> = between(cell, "`", '`')
        .filter_map(|name| name.strip_suffix("()"))
        .collect();
    for name in &names {
        let at = code.find(&format!("fn {name}("));
        let at = at.unwrap_or_else(|| panic!("no function {name} where it should be"));
        let before = &code[..at];
        let is_test = before.trim_end().ends_with(']')
            || before.trim_end().ends_with("async") && before.contains("#[tokio::test]");
        assert!(is_test, "{name} is no test");
    }
    names.len()
}
