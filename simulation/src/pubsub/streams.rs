//! Streams: they deliver a subscription's messages and pass on acknowledgements.

use std::sync::Arc;

use bus::{
    Ack, AckOutcome,
    pubsub_service::{MessageAck, PullOptions, PullSender, ReceivedMessage, ServiceError},
};
use futures::future::OptionFuture;
use system::clock::{Instant, steady};
use tokio::{
    sync::futures::OwnedNotified,
    time::{sleep, sleep_until},
};

use super::{
    PubSubModel,
    requests::unavailable,
    state::State,
    subscription::{Delivered, StreamState},
};

/// An open stream. Dropping it closes it.
pub(super) struct OpenStream {
    model: PubSubModel,
    name: Arc<str>,
    /// Number of the subscription.
    subscription: u64,
    number: u64,
    /// When it ends, or is reopened.
    ends: Option<Instant>,
}

/// What a stream does next.
struct Turn {
    taken: Vec<Delivered>,
    changed: OwnedNotified,
    due: Option<Instant>,
}

impl PubSubModel {
    /// Runs a stream until it ends.
    pub(super) async fn run_stream(&self, name: &str, options: PullOptions, out: PullSender) -> ServiceError {
        let run = async {
            let mut stream = self.open_stream(name, options).await?;
            loop {
                for message in stream.next().await? {
                    out.send(message).await?;
                }
            }
        };
        let Err::<std::convert::Infallible, _>(ended) = run.await;
        ended
    }

    pub(super) async fn open_stream(&self, name: &str, options: PullOptions) -> Result<OpenStream, ServiceError> {
        let (model, name) = (self.clone(), Arc::<str>::from(name));
        let open = move |state: &mut State, now| {
            let (number, ends) = (state.number(), state.stream_end(now));
            let subscription = state.find_subscription(&name, now)?;
            let limit = |limit: i64| usize::try_from(limit).unwrap_or(usize::MAX);
            let limits = StreamState::new(
                limit(options.max_outstanding_messages),
                limit(options.max_outstanding_bytes),
                options.max_lease,
            );
            subscription.open_stream(number, limits, now);
            Ok(OpenStream {
                model,
                subscription: subscription.number,
                name,
                number,
                ends,
            })
        };
        self.request(open).await
    }

    /// Passes on the outcome of a delivery.
    fn settle(&self, name: &str, subscription: u64, id: u64, delivery: u32, outcome: AckOutcome) {
        let (mut state, now) = (self.state(), steady());
        let is_paused = state.is_paused();
        let State {
            subscriptions, dice, ..
        } = &mut *state;
        let found = subscriptions.get_mut(name);
        let Some(found) = found.filter(|found| found.number == subscription) else {
            return;
        };
        match outcome {
            _ if is_paused => found.lose_ack(id, delivery, now),
            AckOutcome::Acked => found.ack(id, delivery, now, dice),
            AckOutcome::Nacked => found.nack(id, delivery, now),
        }
    }
}

impl OpenStream {
    /// Waits for messages.
    ///
    /// # Errors
    /// The stream has ended.
    pub(super) async fn next(&mut self) -> Result<Vec<ReceivedMessage>, ServiceError> {
        loop {
            if self.ends.is_some_and(|ends| ends <= steady()) {
                self.end_or_reopen().await?;
            }
            let turn = self.take()?;
            if !turn.taken.is_empty() {
                return Ok(turn
                    .taken
                    .into_iter()
                    .map(|delivered| self.received(delivered))
                    .collect());
            }
            let until = [turn.due, self.ends].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = turn.changed => {}
                Some(()) = OptionFuture::from(until.map(sleep_until)) => {}
            }
        }
    }

    fn take(&self) -> Result<Turn, ServiceError> {
        let (mut state, now) = (self.model.state(), steady());
        let is_paused = state.is_paused();
        let State {
            subscriptions, dice, ..
        } = &mut *state;
        let found = subscriptions.get_mut(&*self.name);
        let found = found.filter(|found| found.number == self.subscription);
        let found = found.ok_or(ServiceError::NotFound)?;
        let changed = found.changed();
        if is_paused {
            return Ok(Turn {
                taken: Vec::new(),
                changed,
                due: None,
            });
        }
        let max = dice.response_size();
        Ok(Turn {
            taken: found.take(self.number, max, now, dice),
            changed,
            due: found.next_due(self.number),
        })
    }

    fn received(&self, delivered: Delivered) -> ReceivedMessage {
        let Delivered { message, delivery } = delivered;
        let dice = &mut self.model.state().dice;
        let is_untimed = dice.chance(dice.faults.untimed);
        let attributes = message.attributes.iter();
        let (model, name, subscription, id) = (
            self.model.clone(),
            Arc::clone(&self.name),
            self.subscription,
            message.id,
        );
        ReceivedMessage {
            attributes: attributes
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            data: message.data.clone(),
            published: (!is_untimed).then_some(message.published),
            ack: MessageAck::new(Ack::new(move |outcome| {
                model.settle(&name, subscription, id, delivery, outcome);
            })),
        }
    }

    /// Ends the stream with an error, or delivers nothing until the client library has reopened it.
    async fn end_or_reopen(&mut self) -> Result<(), ServiceError> {
        let stall = {
            let dice = &mut self.model.state().dice;
            dice.chance(0.5).then(|| dice.up_to(dice.faults.stream_stall))
        };
        let stall = stall.ok_or_else(|| unavailable("the stream was closed"))?;
        sleep(stall).await;
        self.ends = self.model.state().stream_end(steady());
        Ok(())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let (mut state, now) = (self.model.state(), steady());
        let State {
            subscriptions, dice, ..
        } = &mut *state;
        let found = subscriptions.get_mut(&*self.name);
        if let Some(found) = found.filter(|found| found.number == self.subscription) {
            let are_nacks_lost = dice.chance(dice.faults.lost_nack);
            found.close_stream(self.number, are_nacks_lost, now);
        }
    }
}

impl State {
    fn stream_end(&mut self, now: Instant) -> Option<Instant> {
        let lifetime = self.dice.faults.stream_lifetime?;
        Some(now + self.dice.up_to(lifetime))
    }
}
