//! Who can log in: listed, made, changed and removed (`/api/identities`).

use super::commands::reply;
use super::request::{self, BadRequest};
use crate::api::Asking;
use crate::api::reply::Reply;
use crate::api::rescue::Failure;
use crate::clock::Timestamp;
use crate::identities::{Command, Error};

pub(super) fn list(asking: &Asking<'_>) -> Result<Reply, Failure> {
    reply(&asking.shared.auth.identities.list())
}

pub(super) async fn run(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    let command: Command = request::json(asking).await?;
    if let (Command::Create { .. }, Some(reason)) = (&command, &asking.shared.options.no_logins) {
        return Err(Failure::Request(BadRequest::Impossible(reason.clone())));
    }
    let (word, name) = (command.word(), command.name().to_owned());
    asking.note_about(format!("{word} {name}"));
    let by = asking.caller.key();
    let identities = &asking.shared.auth.identities;
    let done = identities
        .run(command, &by, Timestamp::now())
        .await
        .map_err(|error| {
            if let Error::Storage(error) = &error {
                tracing::error!(%error, "an identity cannot be kept");
            }
            let told = error.to_string();
            Failure::Request(match error {
                Error::Unknown(_) | Error::NoSecret(_) => BadRequest::Absent(told),
                Error::Exists(_)
                | Error::TooMany(_)
                | Error::MasterKey(_)
                | Error::Storage(_)
                | Error::Hash => BadRequest::Impossible(told),
                _ => BadRequest::Body(told),
            })
        })?;
    tracing::info!(name, by, done = word, "an identity was changed");
    reply(&done)
}
