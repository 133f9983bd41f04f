//! Which readers' processes live, and what the dead left behind.
//!
//! Each process that reads shows a sign of life: a subscription whose name tells the minute, made anew every few minutes. Names are all there is that every
//! process can list and that the emulator keeps, so nothing else is needed to know of each other.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::{
    admin::Admin,
    failure::Failure,
    names::{Names, Use},
};
use crate::PublishTime;

/// A sign of life is renewed after this.
const RENEW_MINUTES: u64 = 4;

/// A replica without a sign of life from within this is dead.
const DEAD_MINUTES: u64 = 10;

/// How often it is swept, beside once at start.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(120);

/// What this process has, and when it last showed that it lives.
#[derive(Default)]
pub(super) struct Replicas {
    own: Mutex<HashSet<String>>,
    shown: AsyncMutex<Option<u64>>,
}

impl Replicas {
    /// Notes a subscription as this process's.
    pub(super) fn own(&self, subscription: &str) {
        self.own.lock().insert(subscription.to_owned());
    }

    /// The opposite.
    pub(super) fn disown(&self, subscription: &str) {
        self.own.lock().remove(subscription);
    }

    /// Shows that this process lives, where that was not shown lately. Comes before anything a sweep of another's could take.
    pub(super) async fn show_life(&self, admin: &Admin, names: &Names) -> Result<(), Failure> {
        let minute = minute_now();
        let mut shown = self.shown.lock().await;
        if shown.is_some_and(|before| minute < before + RENEW_MINUTES) {
            return Ok(());
        }
        let (topic, life) = (names.life_topic(), names.life(minute));
        let made = match admin.create_temporary(&life, &topic).await {
            Err(Failure::NotFound) => {
                admin.create_topic(&topic).await?;
                admin.create_temporary(&life, &topic).await
            }
            made => made,
        };
        match made {
            Ok(()) | Err(Failure::Exists) => {}
            Err(failure) => return Err(failure),
        }
        if let Some(before) = shown.replace(minute).filter(|before| *before != minute) {
            admin.delete_subscription(&names.life(before)).await?;
        }
        Ok(())
    }

    /// Renews the sign of life of a process that has one.
    pub(super) async fn renew(&self, admin: &Admin, names: &Names) -> Result<(), Failure> {
        let shows = self.shown.lock().await.is_some();
        if shows {
            self.show_life(admin, names).await
        } else {
            Ok(())
        }
    }

    /// Removes what this replica left behind when it was killed, and what dead ones did. Returns how many subscriptions went.
    pub(super) async fn sweep(&self, admin: &Admin, names: &Names) -> Result<usize, Failure> {
        let all = admin.list_subscriptions(&names.project()).await?;
        let shown = *self.shown.lock().await;
        let left = {
            let own = self.own.lock();
            left_behind(&all, names, &own, shown, minute_now())
        };
        for subscription in &left {
            admin.delete_subscription(subscription).await?;
        }
        if !left.is_empty() {
            tracing::info!(subscriptions = left.len(), "removed what dead readers left behind");
        }
        Ok(left.len())
    }

    /// Takes the sign of life away: the process ends, and leaves nothing.
    pub(super) async fn bow_out(&self, admin: &Admin, names: &Names) -> Result<(), Failure> {
        match self.shown.lock().await.take() {
            Some(minute) => admin.delete_subscription(&names.life(minute)).await,
            None => Ok(()),
        }
    }
}

/// Which of these subscriptions are of nobody who lives.
fn left_behind(all: &[String], names: &Names, own: &HashSet<String>, shown: Option<u64>, now: u64) -> Vec<String> {
    let used: Vec<(&String, Use)> = all
        .iter()
        .filter_map(|name| names.purpose(name).map(|purpose| (name, purpose)))
        .collect();
    let mut lives: HashMap<&str, u64> = HashMap::new();
    for (_, purpose) in &used {
        if let Use::Life { replica, minute } = purpose {
            let newest = lives.entry(replica).or_default();
            *newest = (*newest).max(*minute);
        }
    }
    let lives = |replica: &str| lives.get(replica).is_some_and(|minute| now <= minute + DEAD_MINUTES);
    let is_left = |name: &String, purpose: &Use| match purpose {
        Use::Tail { replica } if replica == names.replica() => !own.contains(name),
        Use::Tail { replica } => !lives(replica),
        Use::Life { replica, minute } if replica == names.replica() => shown != Some(*minute),
        Use::Life { replica, .. } => !lives(replica),
    };
    used.iter()
        .filter(|(name, purpose)| is_left(name, purpose))
        .map(|(name, _)| (*name).clone())
        .collect()
}

fn minute_now() -> u64 {
    PublishTime::now().0 / 60_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_what_is_of_nobody_who_lives_and_nothing_else() {
        let (me, other, dead, mute) = (
            Names::new("p", "me"),
            Names::new("p", "other"),
            Names::new("p", "dead"),
            Names::new("p", "mute"),
        );
        let mine = me.new_tail();
        let keep = [
            mine.clone(),
            me.life(1000),
            other.new_tail(),
            other.life(995),
            other.life(991),
        ];
        let take = [
            me.new_tail(),
            me.life(970),
            dead.new_tail(),
            dead.life(989),
            mute.new_tail(),
        ];
        let strangers = ["projects/p/subscriptions/theirs".to_owned()];
        let all = [&keep[..], &take, &strangers].concat();
        let own = HashSet::from([mine]);
        assert_eq!(left_behind(&all, &me, &own, Some(1000), 1000), take);
    }
}
