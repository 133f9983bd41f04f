//! What comes and goes while nobody looks, and what fails on the way.

use std::{sync::atomic::Ordering, time::Duration};

use bus::GapReason;
use kubesim::RestartPolicy;

use crate::support::{Seen, Stage, soon};

/// Ends the running instance, and the next, and the one after that, which is then the only one shown.
async fn restart_twice(stage: &Stage, pod: &str) {
    stage.exit(pod).await;
    for first in [50, 100] {
        soon(stage.cluster.wait_running("app", pod, "c")).await.unwrap();
        stage.write(pod, first..first + 10);
        stage.exit(pod).await;
    }
}

fn stream_of<'a>(seen: &'a [Seen], first: &str) -> &'a Seen {
    let found = seen
        .iter()
        .find(|seen| seen.texts.first().is_some_and(|text| text == first));
    found.unwrap()
}

fn assert_the_one_between_is_told(seen: &[Seen]) {
    let newest = stream_of(seen, "line 100");
    assert_eq!(newest.losses, [(0, 0, GapReason::Gone)]);
    assert_eq!((newest.texts.len(), &newest.gaps[..]), (10, &[][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_came_and_went_while_the_collector_was_away_is_told_once() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Always).await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    collector.kill().await;
    restart_twice(&stage, "p").await;
    for _ in 0..2 {
        let collector = stage.collect().await;
        let seen = stage.until_ended(2).await;
        assert_eq!(stream_of(&seen, "line 0").losses, [(10, 0, GapReason::Gone)]);
        assert_the_one_between_is_told(&seen);
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_the_watch_never_showed_is_told() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Always).await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    stage.gate.blind.store(true, Ordering::SeqCst);
    stage.cluster.break_streams();
    restart_twice(&stage, "p").await;
    stage.gate.blind.store(false, Ordering::SeqCst);
    // A watch that goes on where it broke off may show it yet, too late to be read: then its own stream tells.
    let told = [(0, 0, GapReason::Gone)];
    let seen = stage
        .until("the newest, and the one between told", |seen| {
            let newest = |seen: &Seen| seen.ended && seen.texts.last().is_some_and(|text| text == "line 109");
            seen.iter().any(newest) && seen.iter().any(|seen| seen.losses == told)
        })
        .await;
    assert_eq!(seen.iter().filter(|seen| seen.losses == told).count(), 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_instance_stays_on_record_to_tell_who_came_behind_it() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Always).await;
    stage.write("p", 0..10);
    let collector = stage.collect().await;
    stage.exit("p").await;
    stage.until_ended(1).await[0].assert_whole(0..10);
    // The next is started about a second after the end.
    collector.stop().await;
    for first in [50, 100] {
        soon(stage.cluster.wait_running("app", "p", "c")).await.unwrap();
        stage.write("p", first..first + 10);
        stage.exit("p").await;
    }
    let collector = stage.collect().await;
    let seen = stage.until_ended(2).await;
    stream_of(&seen, "line 0").assert_whole(0..10);
    assert_the_one_between_is_told(&seen);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_container_never_seen_before_nothing_was_promised() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Always).await;
    stage.write("p", 0..10);
    stage.exit("p").await;
    soon(stage.cluster.wait_running("app", "p", "c")).await.unwrap();
    stage.write("p", 50..60);
    stage.exit("p").await;
    let collector = stage.collect().await;
    stage.until_ended(1).await[0].assert_whole(50..60);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_task_failed_is_followed_again_from_its_checkpoint() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    stage.bus.panic_once.store(true, Ordering::SeqCst);
    stage.write("p", 10..20);
    stage.until_lines(20).await;
    stage.exit("p").await;
    stage.until_ended(1).await[0].assert_whole(0..20);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_whether_a_silent_log_has_more_holds_nothing_up() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..1);
    stage.until_lines(1).await;
    let asked = stage.gate.logs.load(Ordering::SeqCst);
    stage.gate.hold.store(true, Ordering::SeqCst);
    let looked = async {
        while stage.gate.logs.load(Ordering::SeqCst) == asked {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // It looks after 30 s of silence at the latest.
    tokio::time::timeout(Duration::from_secs(60), looked).await.unwrap();
    stage.write("p", 1..2);
    stage.until_lines(2).await.assert_whole(0..2);
    collector.stop().await;
}
