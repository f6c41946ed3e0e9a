use chrono::{DateTime, TimeDelta, Utc};
use kaeru_protocol::FeedCursor;

use super::live::Live;
use crate::store::feed::{Head, Told};

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
}

fn head(epoch: &str, seq: i64) -> Head {
    Head {
        epoch: epoch.to_owned(),
        seq,
    }
}

fn told(seq: i64, event: &str) -> Told {
    Told {
        seq,
        event: event.to_owned(),
        decision: format!("d-{event}"),
        verdict: "roll_back".to_owned(),
        mode: "enforce".to_owned(),
        failed: None,
        expires_at: at(10_000),
    }
}

fn events(live: &Live, cursor: Option<&str>) -> (bool, String, Vec<String>) {
    let cursor: Option<FeedCursor> = cursor.map(|text| text.parse().unwrap());
    let page = live.page(cursor.as_ref(), 1_000).unwrap();
    let names = page.verdicts.iter().map(|v| v.event.to_string()).collect();
    (page.reset, page.cursor.to_string(), names)
}

#[test]
fn a_verdict_told_again_moves_to_the_end() {
    let mut live = Live::default();
    assert_eq!(live.page(None, 0), None);
    live.take(&head("e", 2), true, vec![told(1, "a"), told(2, "b")]);
    live.take(&head("e", 3), false, vec![told(3, "a")]);
    assert_eq!(
        events(&live, None),
        (true, "e:3".into(), vec!["b".into(), "a".into()])
    );
    assert_eq!(
        events(&live, Some("e:1")),
        (false, "e:3".into(), vec!["b".into(), "a".into()])
    );
    assert_eq!(
        events(&live, Some("e:2")),
        (false, "e:3".into(), vec!["a".into()])
    );
    assert_eq!(events(&live, Some("e:3")), (false, "e:3".into(), vec![]));
}

#[test]
fn a_cursor_that_is_ahead_of_what_was_read_is_known() {
    let mut live = Live::default();
    live.take(&head("e", 2), true, vec![told(2, "a")]);
    let is_behind = |cursor: &str| live.is_behind(&cursor.parse().unwrap());
    assert!(is_behind("e:3"));
    assert!(
        is_behind("f:1"),
        "another aggregator saw a failover before us"
    );
    assert!(!is_behind("e:2"));
}

#[test]
fn what_we_told_is_taken_in_unread_where_nobody_told_anything_before() {
    let mut live = Live::default();
    assert_eq!(live.take_next(&head("e", 1), vec![told(1, "a")]), None);
    live.take(&head("e", 2), true, vec![told(2, "a")]);
    assert_eq!(live.take_next(&head("e", 4), vec![told(4, "b")]), None);
    assert_eq!(live.take_next(&head("f", 3), vec![told(3, "b")]), None);
    assert_eq!(events(&live, Some("e:2")), (false, "e:2".into(), vec![]));
    let next = vec![told(3, "b"), told(4, "a")];
    assert_eq!(live.take_next(&head("e", 4), next.clone()), Some(0));
    assert_eq!(live.take_next(&head("e", 4), next), None, "once");
    assert_eq!(
        events(&live, Some("e:2")),
        (false, "e:4".into(), vec!["b".into(), "a".into()])
    );
}

#[test]
fn another_history_starts_over() {
    let mut live = Live::default();
    live.take(&head("e", 2), true, vec![told(2, "a")]);
    assert_eq!(live.position_in(&head("e", 5)), Some(2));
    assert_eq!(live.position_in(&head("e", 1)), None, "the store went back");
    assert_eq!(live.position_in(&head("f", 9)), None);
    live.take(&head("f", 1), true, vec![told(1, "b")]);
    assert_eq!(
        events(&live, Some("e:2")),
        (true, "f:1".into(), vec!["b".into()])
    );
    assert_eq!(
        events(&live, Some("f:7")),
        (true, "f:1".into(), vec!["b".into()])
    );
}

#[test]
fn what_ran_out_is_not_told() {
    let mut live = Live::default();
    live.take(&head("e", 1), true, vec![told(1, "a")]);
    let page = live.page(None, 9_000).unwrap();
    assert_eq!(page.verdicts[0].ttl_ms, 1_000);
    assert!(live.page(None, 10_000).unwrap().verdicts.is_empty());
    live.expire(10_000);
    assert_eq!(live.len(), 0);
}

#[test]
fn a_long_feed_comes_in_pages_and_is_bounded() {
    let mut live = Live::default();
    let rows = (1..=100_010)
        .map(|seq| told(seq, &format!("e{seq}")))
        .collect();
    assert_eq!(live.take(&head("e", 100_010), true, rows), 10);
    let first = live.page(None, 0).unwrap();
    assert!(first.more && first.reset);
    assert_eq!(first.verdicts[0].event.as_str(), "e11");
    assert_eq!(first.cursor.seq, 10 + first.verdicts.len() as u64);
    let second = live.page(Some(&first.cursor), 0).unwrap();
    assert!(!second.reset);
    assert_eq!(
        second.verdicts[0].event.to_string(),
        format!("e{}", first.cursor.seq + 1)
    );
}

#[test]
fn a_notification_of_what_is_known_wakes_nobody() {
    let feed = super::Feed::new();
    assert!(!feed.knows("e:0"), "nothing was read yet");
    feed.live_mut()
        .take(&head("e", 2), true, vec![told(2, "a")]);
    assert!(feed.knows("e:1") && feed.knows("e:2"));
    assert!(!feed.knows("e:3") && !feed.knows("f:1"));
    assert!(!feed.knows(""), "what does not say how far it told");
}
