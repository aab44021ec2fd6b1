//! Items of the Secret Service (GNOME Keyring, KWallet, KeePassXC): a label, attributes, and a secret of any bytes.

use super::{Found, Incoming, Refusal, target, value};
use crate::{
    name::{Attributes, Service, TargetPrefix},
    secret::Buffer,
};

/// What names the target of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// The label that people see.
    Label,
    /// The value of this attribute.
    Attribute(String),
}

/// One item as the keychain gives it.
pub struct ServiceItem {
    /// The label.
    pub label: String,
    /// The attributes, each name once.
    pub attributes: Vec<(String, String)>,
    /// The secret; None while the keychain keeps it locked.
    pub secret: Option<Buffer>,
}

/// The schema of an item, which every program of libsecret adds, says nothing that a vault needs.
const SCHEMA: &str = "xdg:schema";

/// What marks the items that this program makes itself, to keep a vault's key or a vault in the keychain.
const OWN: (&str, &str) = ("application", "keychain-auth");

/// One item in the form of the vault. Its attributes are kept, but for that which names the schema.
pub fn service_item(
    item: ServiceItem,
    naming: &Naming,
    service: &Service,
    prefix: Option<&TargetPrefix>,
) -> Found {
    let ServiceItem { label, attributes, secret } = item;
    let name = match naming {
        Naming::Label => Ok(label.clone()),
        Naming::Attribute(wanted) => {
            let found = attributes.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone()).ok_or(Refusal::Nameless)
        }
    };
    let own = attributes.iter().any(|(name, value)| (name.as_str(), value.as_str()) == OWN);
    let name = if own { Err(Refusal::Own) } else { name };
    let secret = name.and_then(|name| {
        let target = target(prefix, &name)?;
        let attributes = kept(&attributes)?;
        let value = value(secret.ok_or(Refusal::Locked)?)?;
        Ok(Incoming { service: service.clone(), target, attributes, value })
    });
    Found { name: label, place: None, secret }
}

fn kept(all: &[(String, String)]) -> Result<Attributes, Refusal> {
    let mut kept = Attributes::new();
    for (name, value) in all.iter().filter(|(name, _)| name != SCHEMA) {
        kept.insert(name, value).map_err(Refusal::Attribute)?;
    }
    Ok(kept)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::name::NameError;

    fn read(
        label: &str,
        pairs: &[(&str, &str)],
        secret: Option<&[u8]>,
        by: &Naming,
    ) -> Result<String, Refusal> {
        let attributes =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let item = ServiceItem { label: label.to_owned(), attributes, secret: secret.map(Buffer::from) };
        let found = service_item(item, by, &Service::parse("s").unwrap(), None);
        found.secret.map(|it| {
            let attributes: Vec<_> =
                it.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} {}", it.target, attributes.join(","))
        })
    }

    #[test]
    fn an_item_is_named_by_its_label_or_by_an_attribute_and_keeps_the_others() {
        let pairs = [("xdg:schema", "org.freedesktop.Secret.Generic"), ("user", "me"), ("host", "h")];
        let user = Naming::Attribute("user".into());
        assert_eq!(read("My key", &pairs, Some(b"x"), &Naming::Label).unwrap(), "My key host=h,user=me");
        assert_eq!(read("My key", &pairs, Some(b"x"), &user).unwrap(), "me host=h,user=me");
        assert_eq!(read("My key", &pairs[..1], Some(b"x"), &user), Err(Refusal::Nameless));
    }

    #[test]
    fn what_a_vault_can_not_hold_is_refused_by_its_rule() {
        let label = &Naming::Label;
        assert_eq!(read("k", &[], None, label), Err(Refusal::Locked));
        assert_eq!(read("k", &[OWN, ("vault-key", "x")], Some(b"x"), label), Err(Refusal::Own));
        assert_eq!(read("k", &[], Some(b"\xff\x00"), label), Err(Refusal::NotText));
        assert_eq!(read("", &[], Some(b"x"), label), Err(Refusal::Name(NameError::Empty)));
        let long = "v".repeat(257);
        assert_eq!(
            read("k", &[("a", &long)], Some(b"x"), label),
            Err(Refusal::Attribute(NameError::TooLong(256)))
        );
    }
}
