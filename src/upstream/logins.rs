//! The logins of one endpoint: which of them a request is made with, and which are set aside because they were refused.
//! Called by `client` for each question; what a login is, and how it is used, is in `credentials` and `authorization`.
//!
//! A login that is refused is set aside for a minute, then longer; after that one request tries it again. While all
//! are, content that is public is still to be had: then nobody's name is given.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::credentials::Login;
use crate::config::CredentialOrder;
use crate::oci::RepositoryName;

/// How long it is remembered which login a repository was read with.
const HABIT: Duration = Duration::from_mins(10);
/// Repositories for which that is remembered.
const HABITS: u64 = 10_000;
/// How often it is said that no login is left.
const SAY_AGAIN: Duration = Duration::from_mins(5);
/// What a login weighs of which nothing is known, where nothing is known of the others either.
const WEIGHT: u64 = 100;

/// What a login is called in the log and in metrics: one at each upstream, `anonymous` for none. Budgets are kept by it.
pub(super) type LoginName = Arc<str>;

/// The name of whoever has no login.
pub(super) const ANONYMOUS: &str = "anonymous";

/// What is left of a login's budget, for what counts against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing is known, or there is no limit.
    Unknown,
    /// So many requests.
    Some(u64),
    /// Nothing, as far as is known, but that may be asked now.
    Perhaps,
    /// Nothing, for now: another login is used while there is one.
    Nothing,
}

/// A question, as far as it matters for the choice.
pub(super) struct Wish<'a> {
    pub(super) repository: &'a RepositoryName,
    /// It counts against a budget.
    pub(super) counted: bool,
    /// Those that were tried for it already.
    pub(super) tried: &'a [LoginName],
}

/// With what a question is asked.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) login: Arc<Login>,
    /// All logins are set aside: nobody's name is given although there are some. What is refused then says nothing.
    pub(super) makeshift: bool,
}

/// Which login a repository was read with.
#[derive(Clone)]
struct Habit {
    login: LoginName,
    /// Others were refused.
    needed: bool,
}

/// The logins of an endpoint.
pub(super) struct Logins {
    prefix: Arc<str>,
    all: Vec<Arc<Login>>,
    nobody: Arc<Login>,
    stranger: Arc<Login>,
    order: CredentialOrder,
    /// Smooth weighted round robin: what each has saved up.
    saved: Mutex<Vec<i64>>,
    habits: moka::sync::Cache<RepositoryName, Habit>,
    said: Mutex<Option<Instant>>,
}

impl Logins {
    pub(super) fn new(prefix: Arc<str>, all: Vec<Arc<Login>>, order: CredentialOrder) -> Self {
        Self {
            saved: Mutex::new(vec![0; all.len()]),
            nobody: Arc::new(Login::nobody(prefix.clone())),
            stranger: Arc::new(Login::stranger(prefix.clone())),
            prefix,
            all,
            order,
            habits: moka::sync::Cache::builder()
                .max_capacity(HABITS)
                .time_to_live(HABIT)
                .build(),
            said: Mutex::default(),
        }
    }

    /// Those that are configured, in order.
    pub(super) fn all(&self) -> &[Arc<Login>] {
        &self.all
    }

    /// Anybody but us.
    pub(super) fn stranger(&self) -> &Arc<Login> {
        &self.stranger
    }

    /// Whether there is more than one way to ask.
    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// With what to ask. `left` says what a login's budget has left; it is asked only where the question counts. `None`
    /// when everything that makes sense was tried.
    pub(super) fn choose(&self, wish: &Wish<'_>, left: impl Fn(&Login) -> Left) -> Option<Choice> {
        let now = Instant::now();
        if self.all.is_empty() {
            return wish.tried.is_empty().then(|| self.anonymous(false));
        }
        let in_use: Vec<usize> = (0..self.all.len())
            .filter(|index| !self.all[*index].is_aside(now))
            .collect();
        let usable: Vec<usize> = in_use
            .iter()
            .copied()
            .filter(|index| !wish.tried.contains(self.all[*index].name()))
            .collect();
        if usable.is_empty() {
            let tried_as_nobody = wish.tried.iter().any(|name| &**name == ANONYMOUS);
            return (in_use.is_empty() && !tried_as_nobody).then(|| self.anonymous(true));
        }
        let budgets: Vec<(usize, Left)> = usable
            .iter()
            .map(|index| {
                let login = &self.all[*index];
                (*index, if wish.counted { left(login) } else { Left::Unknown })
            })
            .collect();
        let fresh: Vec<(usize, Left)> = budgets
            .iter()
            .copied()
            .filter(|(_, left)| !matches!(left, Left::Nothing | Left::Perhaps))
            .collect();
        let perhaps = budgets.iter().find(|(_, left)| *left == Left::Perhaps);
        let chosen = match fresh.as_slice() {
            // Each in turn, or what one has again would not be found out while another has nothing.
            [] if let Some((index, _)) = perhaps => *index,
            // Whether it is asked all the same is for the budget to say. Another try for the same question is not.
            [] if wish.tried.is_empty() => usable[0],
            [] => return None,
            [(only, _)] => *only,
            several => self.among(wish, several),
        };
        let login = self.all[chosen].clone();
        login.taken(now);
        Some(Choice {
            login,
            makeshift: false,
        })
    }

    /// One of several that can be used.
    fn among(&self, wish: &Wish<'_>, several: &[(usize, Left)]) -> usize {
        let habit = self.habits.get(wish.repository).filter(|habit| {
            // What does not count uses the token that is there.
            habit.needed || !wish.counted
        });
        if let Some(habit) = habit
            && let Some((index, _)) = several
                .iter()
                .find(|(index, _)| *self.all[*index].name() == habit.login)
        {
            return *index;
        }
        match self.order {
            CredentialOrder::First => several[0].0,
            CredentialOrder::Even if !wish.counted => several[0].0,
            CredentialOrder::Even => self.next_in_turn(several),
        }
    }

    fn next_in_turn(&self, several: &[(usize, Left)]) -> usize {
        let known: Vec<u64> = several
            .iter()
            .filter_map(|(_, left)| match left {
                Left::Some(count) => Some(*count),
                Left::Unknown | Left::Perhaps | Left::Nothing => None,
            })
            .collect();
        let mean = known
            .iter()
            .sum::<u64>()
            .checked_div(known.len() as u64)
            .unwrap_or(WEIGHT);
        let weight = |left: Left| match left {
            Left::Some(count) => i64::try_from(count.clamp(1, 1_000_000)).unwrap_or(1),
            Left::Unknown | Left::Perhaps | Left::Nothing => {
                i64::try_from(mean.clamp(1, 1_000_000)).unwrap_or(1)
            }
        };
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut best = several[0].0;
        let mut total = 0;
        for (index, left) in several {
            let weight = weight(*left);
            total += weight;
            saved[*index] += weight;
            if saved[*index] > saved[best] {
                best = *index;
            }
        }
        saved[best] -= total;
        best
    }

    fn anonymous(&self, makeshift: bool) -> Choice {
        if makeshift {
            self.say_that_none_is_left();
        }
        Choice {
            login: self.nobody.clone(),
            makeshift,
        }
    }

    fn say_that_none_is_left(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            return;
        }
        *said = Some(Instant::now());
        tracing::error!(
            upstream = &*self.prefix,
            "none of its credentials is accepted: what is public is pulled anonymously, what is private is not to be had"
        );
    }

    /// Whether another login may see something where this one does not: it is not known to read this repository.
    pub(super) fn may_be_hidden(&self, repository: &RepositoryName, login: &Login) -> bool {
        self.are_several()
            && self
                .habits
                .get(repository)
                .is_none_or(|habit| habit.login != *login.name())
    }

    /// The repository was read with this login; `after_refusals`: others could not.
    pub(super) fn note_use(&self, repository: &RepositoryName, login: &Login, after_refusals: bool) {
        if !self.are_several() {
            return;
        }
        let known = self.habits.get(repository);
        if let Some(habit) = &known
            && habit.login == *login.name()
            && (habit.needed || !after_refusals)
        {
            return;
        }
        let habit = Habit {
            login: login.name().clone(),
            needed: after_refusals,
        };
        self.habits.insert(repository.clone(), habit);
    }
}

/// How a configured login stands, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginState {
    /// Its name.
    pub name: String,
    /// The word for its kind.
    pub kind: &'static str,
    /// For how long it is still set aside, and why, if it is.
    pub aside: Option<(Duration, String)>,
}
