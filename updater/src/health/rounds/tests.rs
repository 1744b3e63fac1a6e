//! The rounds, on a clock that is given.

use super::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pace(deadline: u64, interval: u64) -> Pace {
    Pace { deadline: seconds(deadline), interval: seconds(interval) }
}

/// Plays the rounds second by second: `answer(check, second)` is the result of a look, `None` if it never ends. The second of
/// the end, and the looks as (second, check).
fn play(
    paces: &[Pace],
    mode: Mode,
    answer: impl Fn(usize, u64) -> Option<Result<(), &'static str>>,
) -> (Rounds, u64, Vec<(u64, usize)>) {
    let mut rounds = Rounds::new(paces.iter().copied(), mode, Duration::ZERO);
    let mut looks = Vec::new();
    for second in 0..100_000 {
        let now = seconds(second);
        loop {
            let due = rounds.due(now);
            for (index, limit) in &due {
                assert!(*limit >= MIN_LOOK);
                looks.push((second, *index));
                if let Some(result) = answer(*index, second) {
                    rounds.ended(*index, result.map_err(Trouble::new), now);
                }
            }
            rounds.tick(now);
            if due.is_empty() {
                break;
            }
        }
        if rounds.is_over() {
            return (rounds, second, looks);
        }
        let pause = rounds.pause(now);
        assert!(pause > Duration::ZERO && pause <= WATCH_INTERVAL, "{pause:?}");
    }
    panic!("the rounds do not end");
}

fn standings(rounds: &Rounds) -> Vec<Standing> {
    rounds.tracks().iter().map(|track| track.standing).collect()
}

const NO_SOAK: Mode = Mode::Until { soak: Duration::ZERO };

#[test]
fn what_is_healthy_at_once_ends_at_once() {
    let (rounds, end, looks) = play(&[pace(30, 2), pace(30, 2)], NO_SOAK, |_, _| Some(Ok(())));
    assert_eq!((standings(&rounds), end, looks.len()), (vec![Standing::Healthy; 2], 0, 2));
    let (rounds, end, _) = play(&[], NO_SOAK, |_, _| None);
    assert!(rounds.is_over() && end == 0);
}

#[test]
fn a_check_may_become_healthy_until_its_deadline() {
    let late = |_, second| Some(if second >= 10 { Ok(()) } else { Err("not yet") });
    let (rounds, end, looks) = play(&[pace(10, 4)], NO_SOAK, late);
    assert_eq!((standings(&rounds), end), (vec![Standing::Healthy], 10));
    assert_eq!(looks, [(0, 0), (4, 0), (8, 0), (10, 0)], "the last look is at the deadline");
    let (rounds, end, _) = play(&[pace(9, 4)], NO_SOAK, late);
    assert_eq!((standings(&rounds), end), (vec![Standing::Failed], 9));
    assert_eq!(rounds.tracks()[0].trouble.as_ref().unwrap().why, "not yet");
}

#[test]
fn one_that_was_healthy_early_is_looked_at_again_before_the_end() {
    let answer = |index, second| Some(if index == 0 || second >= 20 { Ok(()) } else { Err("slow") });
    let (rounds, _, looks) = play(&[pace(30, 5), pace(30, 5)], NO_SOAK, answer);
    assert_eq!(standings(&rounds), [Standing::Healthy; 2]);
    assert!(looks.contains(&(20, 0)), "{looks:?}");
    let sick_by_then = |index, second| Some(if (index == 0) == (second < 20) { Ok(()) } else { Err("gone") });
    let (rounds, _, _) = play(&[pace(30, 5), pace(30, 5)], NO_SOAK, sick_by_then);
    assert_eq!(standings(&rounds), [Standing::Failed, Standing::Healthy]);
}

#[test]
fn all_must_hold_through_the_soak() {
    let soak = Mode::Until { soak: seconds(60) };
    let (rounds, end, looks) = play(&[pace(30, 10)], soak, |_, _| Some(Ok(())));
    assert_eq!((standings(&rounds), end, looks.len()), (vec![Standing::Healthy], 60, 7));
    let sick_late = |_, second| Some(if second < 50 { Ok(()) } else { Err("exit 1") });
    let (rounds, end, _) = play(&[pace(30, 10)], soak, sick_late);
    assert_eq!((standings(&rounds), end), (vec![Standing::Failed], 50));
    assert_eq!(rounds.tracks()[0].trouble.as_ref().unwrap().why, "was healthy, then: exit 1");
}

#[test]
fn a_look_that_never_ends_is_given_up_and_hinders_no_other() {
    let answer = |index, _| (index == 1).then_some(Ok(()));
    let (mut rounds, end, _) = play(&[pace(30, 2), pace(30, 2)], NO_SOAK, answer);
    assert_eq!(standings(&rounds), [Standing::Failed, Standing::Healthy]);
    assert_eq!(end, 30 + LOOK_GRACE.as_secs());
    assert_eq!(rounds.tracks()[0].trouble.as_ref().unwrap().why, "no answer in 30 s");
    rounds.ended(0, Ok(()), seconds(99));
    assert_eq!(rounds.tracks()[0].standing, Standing::Failed, "what comes later is not heard");
}

#[test]
fn when_one_has_failed_the_others_are_not_waited_for() {
    let answer = |index, _| (index == 0).then_some(Err("exit 1"));
    let (rounds, end, _) = play(&[pace(2, 1), pace(3600, 1)], NO_SOAK, answer);
    assert_eq!(standings(&rounds), [Standing::Failed, Standing::Waiting]);
    assert_eq!(end, 2 + DOOMED_PATIENCE.as_secs());
    let mut rounds = Rounds::new([pace(600, 1)].into_iter(), NO_SOAK, Duration::ZERO);
    rounds.doom(Duration::ZERO);
    assert_eq!(rounds.due(Duration::ZERO), [(0, DOOMED_PATIENCE)]);
    rounds.ended(0, Err(Trouble::new("not yet")), seconds(1));
    rounds.tick(seconds(1));
    assert!(rounds.is_over());
}

#[test]
fn by_hand_each_is_looked_at_once() {
    let answer = |index, _| Some(if index == 0 { Ok(()) } else { Err("exit 1") });
    let (rounds, end, looks) = play(&[pace(30, 2), pace(30, 2)], Mode::Once, answer);
    assert_eq!(standings(&rounds), [Standing::Healthy, Standing::Failed]);
    assert_eq!((end, looks.len()), (0, 2));
}

#[test]
fn words_say_who_is_waited_for() {
    let mut rounds = Rounds::new([pace(9, 1), pace(9, 1)].into_iter(), NO_SOAK, Duration::ZERO);
    rounds.due(Duration::ZERO);
    rounds.ended(0, Ok(()), seconds(1));
    assert_eq!(rounds.words(&["a", "b"], seconds(1)), "1 of 2 checks healthy, waiting for: b");
}
