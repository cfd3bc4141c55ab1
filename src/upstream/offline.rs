//! The switch that keeps us from connecting to anybody. `transport` reads it before every request, and what is on its way
//! ends when it is turned on. Made by `app`, turned by an operator through `cache`.

use tokio::sync::watch;

/// Whether we are offline. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Offline(watch::Sender<bool>);

impl Default for Offline {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Offline {
    /// A switch that is on, or off.
    pub fn new(on: bool) -> Self {
        Self(watch::Sender::new(on))
    }

    /// Whether we are offline: then nothing is asked of any upstream.
    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Turns it; whether it was otherwise.
    pub fn set(&self, on: bool) -> bool {
        self.0.send_if_modified(|was| std::mem::replace(was, on) != on)
    }

    /// Waits until it is on, or off. At once, when it is.
    pub async fn until(&self, wanted: bool) {
        // It cannot fail: `self` is a sender.
        let _ = self.0.subscribe().wait_for(|on| *on == wanted).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_clones_turn_together() {
        let switch = Offline::default();
        let other = switch.clone();
        other.until(false).await;
        let waiting = tokio::spawn(async move { other.until(true).await });
        assert!(switch.set(true) && !switch.set(true) && switch.is_on());
        waiting.await.unwrap();
        assert!(switch.set(false) && !switch.is_on());
    }
}
