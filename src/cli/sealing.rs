//! A sealed policy: which config.json the daemon accepts, told and changed by whoever has the vault's key.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{
    advice::put_policy_back,
    context::Context,
    daemon_link::DaemonLink,
    failure::Failure,
    owner::{Owner, close_to_others, take},
};
use crate::{
    policy::{RegistryError, SealedCopy},
    store::{KeyHolder, KeyMaterial, Keychain, PolicySeal, Slot, StoreError},
};

/// Whoever may seal: through the daemon that has the vault, or on the vault itself.
pub(super) enum Seat {
    Daemon { link: Box<DaemonLink>, holder: Box<KeyHolder>, nonce: [u8; 32], current: PolicySeal },
    Vault(Box<Owner>),
}

impl Seat {
    /// Asks for the vault's key, and which seal holds now.
    pub(super) fn take(cx: &Context, command: &'static str) -> Result<Self, Failure> {
        close_to_others()?;
        if !serves(cx) {
            return Ok(Self::Vault(Box::new(Owner::open_without_values(cx, command)?)));
        }
        let slot = Slot::peek(&cx.paths.data_dir)?.ok_or(StoreError::Absent)?;
        let material = cx.asking().for_slot(&slot)?;
        Self::at_daemon(cx, &slot, &material)
    }

    /// The same for who has asked for the vault's key.
    pub(super) fn with(
        cx: &Context,
        slot: &Slot,
        material: &KeyMaterial,
        command: &'static str,
    ) -> Result<Self, Failure> {
        if serves(cx) {
            return Self::at_daemon(cx, slot, material);
        }
        let vault = take(cx)?.reaching(Keychain::unasked()).open_owned(material)?;
        Ok(Self::Vault(Box::new(Owner::over(vault, cx, command))))
    }

    fn at_daemon(cx: &Context, slot: &Slot, material: &KeyMaterial) -> Result<Self, Failure> {
        let holder = KeyHolder::new(slot, material)?;
        // after the passphrase: who connects and is silent is taken for a stranger
        let link = DaemonLink::open(cx)?;
        let mut link = link.ok_or_else(|| Failure::new("the daemon has just ended", "try again"))?;
        let mut ours = [0; 32];
        getrandom::fill(&mut ours).map_err(StoreError::from)?;
        let told = link.ask(&format!("{{\"type\":\"SEAL\",\"nonce\":\"{}\"}}\n", HEXLOWER.encode(&ours)))?;
        let foreign =
            |_| Failure::new("the process that answers does not have this vault", "restart the daemon");
        let carried = HEXLOWER.decode(told.key.as_bytes()).map_err(|_| foreign(()))?;
        let current = holder.open_seal(&ours, &carried).map_err(|_| foreign(()))?;
        let nonce = HEXLOWER.decode(told.nonce.as_bytes()).ok().and_then(|nonce| nonce.try_into().ok());
        let nonce = nonce.ok_or_else(|| foreign(()))?;
        Ok(Self::Daemon { link: Box::new(link), holder: Box::new(holder), nonce, current })
    }

    /// The seal that holds; zeros where any config.json is accepted.
    pub(super) fn current(&self) -> PolicySeal {
        match self {
            Self::Daemon { current, .. } => *current,
            Self::Vault(owner) => owner.policy_seal(),
        }
    }

    /// Puts another in its place. It is durable when this returns.
    pub(super) fn seal(self, cx: &Context, seal: &PolicySeal) -> Result<(), Failure> {
        match self {
            Self::Daemon { mut link, holder, nonce, .. } => {
                let carried = HEXLOWER.encode(&holder.carry_seal(&nonce, seal)?);
                let nonce = HEXLOWER.encode(&nonce);
                link.ask(&format!("{{\"type\":\"SEAL\",\"nonce\":\"{nonce}\",\"key\":\"{carried}\"}}\n"))?;
                Ok(())
            }
            Self::Vault(owner) => {
                owner.seal_policy(cx, *seal)?;
                owner.close()
            }
        }
    }
}

/// Whether a daemon says that it has the vault open.
fn serves(cx: &Context) -> bool {
    cx.daemon().and_then(|daemon| daemon.vault).is_some_and(|vault| vault.state == "unlocked")
}

/// The seal of a file.
pub(super) fn seal_of(config: &[u8]) -> PolicySeal {
    Sha256::digest(config).into()
}

/// Whether the policy is sealed, as far as that can be told without the key: where it is and nobody knows, an edit makes
/// the daemon refuse everything, and `policy seal` mends it.
pub(super) fn seems_sealed(cx: &Context) -> bool {
    cx.daemon().and_then(|daemon| daemon.policy).is_some_and(|policy| policy.sealed) || copy(cx).exists()
}

/// The copy of what was sealed last.
pub(super) fn copy(cx: &Context) -> SealedCopy {
    SealedCopy::new(cx.paths.data_dir.join("policy.sealed"))
}

/// Seals an edit before it is made. Refuses where what is there was not sealed: the edit would seal it too.
pub(super) fn seal_edit(cx: &Context, before: Option<&[u8]>, after: &[u8]) -> Result<(), RegistryError> {
    let sealed = || -> Result<(), Failure> {
        let seat = Seat::take(cx, "policy edit")?;
        let current = seat.current();
        if current == PolicySeal::default() {
            return copy(cx).remove().map_err(|error| uncopied(&error));
        }
        if before.map(seal_of) != Some(current) {
            let what = if before.is_none() { "gone" } else { "not the policy that was sealed" };
            return Err(Failure::new(
                format!("config.json is {what}, so nothing was changed"),
                put_policy_back(cx),
            ));
        }
        if before != Some(after) {
            seat.seal(cx, &seal_of(after))?;
        }
        copy(cx).write(after).map_err(|error| uncopied(&error))
    };
    sealed().map_err(|failure| RegistryError::Unsealable {
        sentence: failure.sentence().to_owned(),
        advice: failure.advice().to_owned(),
    })
}

pub(super) fn uncopied(error: &dyn fmt::Display) -> Failure {
    Failure::new(
        format!("the copy of the sealed policy can't be written: {error}"),
        "make room in the data folder, then: keychain-auth policy seal",
    )
}
