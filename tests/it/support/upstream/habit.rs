//! Habits: what a registry of a certain kind does of itself, request by request, and in which form it says no. The
//! personalities of `zoo` are made of them; the rules of a test's script come before them.

use std::sync::Arc;

use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::Upstream;
use super::deliver::Answer;
use super::matching::{Asked, Match};
use super::plan::{Plan, serve};
use crate::support::locked;

/// What decides how a request is answered; None leaves it to the next habit, and at last to the correct answer.
type Decide = Arc<dyn Fn(&Asked) -> Option<Plan> + Send + Sync>;

/// One habit.
#[derive(Clone)]
pub(super) struct Habit {
    matcher: Match,
    /// It has its say before anybody is asked for a token.
    at_the_door: bool,
    decide: Decide,
}

/// The form of errors that bring no body of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// `{"errors": [...]}`, as the specification has it.
    #[default]
    Spec,
    /// `{"message": "code: text"}`
    Message,
    /// `{"details": "text"}`
    Details,
    /// A line of plain text.
    Plain,
    /// The page of a web server that stands in front.
    Html,
}

impl Style {
    /// Says the same in this form.
    pub(super) fn apply(self, answer: &mut Answer) {
        let said: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
        let word = |name: &str| said["errors"][0][name].as_str().unwrap_or("UNKNOWN").to_owned();
        let (code, message) = (word("code"), word("message"));
        let (media_type, body) = match self {
            Self::Spec => return,
            Self::Message => (
                "application/json",
                json!({ "message": format!("{}: {message}", code.to_lowercase()) }).to_string(),
            ),
            Self::Details => ("application/json", json!({ "details": message }).to_string()),
            Self::Plain => ("text/plain; charset=utf-8", format!("{message}\n")),
            Self::Html => (
                "text/html",
                format!(
                    "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center><hr><center>nginx</center>\
                     </body>\r\n</html>\r\n",
                    answer.status
                ),
            ),
        };
        answer
            .headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        answer.bytes = body.into();
    }
}

/// What kind of registry it is.
impl Upstream {
    /// From now on `decide` says how such requests are answered, once they have shown what they need to.
    pub fn habit(&self, matcher: Match, decide: impl Fn(&Asked) -> Option<Plan> + Send + Sync + 'static) {
        self.add_habit(matcher, false, decide);
    }

    /// As [`Upstream::habit`], and it has its say before all others.
    pub fn habit_before(
        &self,
        matcher: Match,
        decide: impl Fn(&Asked) -> Option<Plan> + Send + Sync + 'static,
    ) {
        self.add_habit(matcher, false, decide);
        locked(&self.inner.habits).rotate_right(1);
    }

    /// As [`Upstream::habit`], before anybody is asked for a token.
    pub fn habit_at_the_door(
        &self,
        matcher: Match,
        decide: impl Fn(&Asked) -> Option<Plan> + Send + Sync + 'static,
    ) {
        self.add_habit(matcher, true, decide);
    }

    /// Says no in this form.
    pub fn speak(&self, style: Style) {
        *locked(&self.inner.style) = style;
    }

    fn add_habit(
        &self,
        matcher: Match,
        at_the_door: bool,
        decide: impl Fn(&Asked) -> Option<Plan> + Send + Sync + 'static,
    ) {
        let decide = Arc::new(decide);
        locked(&self.inner.habits).push(Habit {
            matcher,
            at_the_door,
            decide,
        });
    }

    /// What the first habit that is about this request says of it.
    pub(super) fn habitual(&self, asked: &Asked, refused: bool) -> Plan {
        let habits = locked(&self.inner.habits).clone();
        let mut applying = habits
            .iter()
            .filter(|habit| (habit.at_the_door || !refused) && habit.matcher.matches(asked));
        let said = applying.find_map(|habit| {
            let plan = (habit.decide)(asked)?;
            Some(if habit.at_the_door {
                plan.before_auth()
            } else {
                plan
            })
        });
        said.unwrap_or_else(serve)
    }
}
