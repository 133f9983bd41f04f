//! What happens to a request.

use std::time::Duration;

use bus::pubsub_service::ServiceError;
use system::{
    clock::{Instant, steady},
    simulation::enter,
    task::spawn,
};
use tokio::time::sleep;

use super::{PubSubModel, dice::Dice, state::State};

enum Fate {
    Execute,
    Refuse(ServiceError),
    /// Execute it and lose the answer, at once or after a while.
    LoseAnswer(Duration),
    /// Fail after this time.
    Hang(Duration),
    /// Execute it after this time, even if the caller has given up.
    Late(Duration),
}

impl PubSubModel {
    /// Executes a request, with latency and faults.
    pub(super) async fn request<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut State, Instant) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (before, after, fate) = {
            let dice = &mut self.state().dice;
            (dice.latency(), dice.latency(), dice.fate())
        };
        sleep(before).await;
        self.wait_while_paused().await?;
        let answer = match fate {
            Fate::Execute => self.execute(operation),
            Fate::Refuse(error) => Err(error),
            Fate::LoseAnswer(hang) => {
                drop(self.execute(operation));
                sleep(hang).await;
                Err(unavailable("the connection was reset"))
            }
            Fate::Hang(hang) => {
                sleep(hang).await;
                Err(unavailable("deadline exceeded"))
            }
            Fate::Late(hang) => self.execute_late(hang, operation).await,
        };
        sleep(after).await;
        answer
    }

    fn execute<T>(
        &self,
        operation: impl FnOnce(&mut State, Instant) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        operation(&mut self.state(), steady())
    }

    async fn execute_late<T: Send + 'static>(
        &self,
        delay: Duration,
        operation: impl FnOnce(&mut State, Instant) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let model = self.clone();
        let late = async move {
            sleep(delay).await;
            model.execute(operation)
        };
        // On no machine: the request is under way even if its machine is killed.
        let executed = enter(None, || spawn(late));
        executed
            .await
            .unwrap_or_else(|_| Err(unavailable("the simulation has ended")))
    }

    /// Fails during a pause, or waits for its end.
    async fn wait_while_paused(&self) -> Result<(), ServiceError> {
        loop {
            let resumed = self.0.resumed.notified();
            {
                let mut state = self.state();
                if !state.is_paused() {
                    return Ok(());
                }
                if state.dice.chance(0.5) {
                    return Err(unavailable("the service is paused"));
                }
            }
            resumed.await;
        }
    }
}

impl Dice {
    fn fate(&mut self) -> Fate {
        let hang = self.up_to(self.faults.hang_time);
        if self.chance(self.faults.unavailable) {
            Fate::Refuse(unavailable("the service is currently unavailable"))
        } else if self.chance(self.faults.quota) {
            Fate::Refuse(ServiceError::ResourceExhausted {
                reason: Some("RATE_LIMIT_EXCEEDED".to_owned()),
                message: "quota exceeded".to_owned(),
            })
        } else if self.chance(self.faults.denied) {
            Fate::Refuse(ServiceError::PermissionDenied("permission denied".to_owned()))
        } else if self.chance(self.faults.lost_answer) {
            let is_slow = self.chance(0.5);
            Fate::LoseAnswer(if is_slow { hang } else { Duration::ZERO })
        } else if self.chance(self.faults.hang) {
            Fate::Hang(hang)
        } else if self.chance(self.faults.late) {
            Fate::Late(hang)
        } else {
            Fate::Execute
        }
    }
}

pub(super) fn unavailable(text: &str) -> ServiceError {
    ServiceError::Unavailable(text.to_owned())
}
