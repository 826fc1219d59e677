//! What an application adds to every request, or looks at: a signature of its own, fields for a proxy, measurements.
//!
//! Source: `behaviour.md` sections 1.6 and 2.10.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use super::RequestError;
use crate::protocol::{ExtFields, RemotingCommand, RequestCode, ResponseCode};
use crate::tasks::panic_message;

/// The binary form of headers has two bytes for the length of a name.
const MAX_NAME_BYTES: usize = i16::MAX as usize;
/// Of all names and values together. The length of a header has three bytes, and JSON may need six for one of a text.
const MAX_FIELDS_BYTES: usize = 2 << 20;

/// Code of an application that sees every request to name servers and brokers, and every answer: what Java's `RPCHook` is
/// for. It is registered at a manager ([`MqClientManager::register_rpc_hook`](crate::client::MqClientManager::register_rpc_hook)),
/// or for all clusters of an application ([`AppBuilder::rpc_hook`](crate::AppBuilder::rpc_hook)).
///
/// Both methods are called on the task that asks, and must not block. What brokers ask this process does not pass here.
///
/// ```
/// use rocketmq::{RpcHook, RpcRequest};
///
/// /// Asks name servers for the brokers of one zone only, as Java's clients do with `ROCKETMQ_ZONE`.
/// struct InZone(String);
///
/// impl RpcHook for InZone {
///     fn before(&self, request: &mut RpcRequest<'_>) -> Result<(), String> {
///         request.put("__ZONE_NAME", &self.0);
///         request.put("__ZONE_MODE", "true");
///         Ok(())
///     }
/// }
/// # let _ = rocketmq::App::builder().rpc_hook(InZone("eu-1".to_owned()));
/// ```
pub trait RpcHook: Send + Sync + 'static {
    /// A request is complete but for what hooks add, and for the signature that `acl:` asks for, which covers that too.
    /// Called once for a request, also where that is sent again because a broker is shutting down.
    ///
    /// # Errors
    ///
    /// Why the request must not leave, in words for people: it ends with [`RequestError::Forbidden`], which holds them.
    fn before(&self, _request: &mut RpcRequest<'_>) -> Result<(), String> {
        Ok(())
    }

    /// A request was answered (whatever the answer says), or will not be. Not called for requests that are not answered, nor
    /// for those whose caller gave up.
    fn after(&self, _call: &RpcCall<'_>, _answer: Result<&RpcAnswer<'_>, &RequestError>) {}
}

/// A request before it leaves.
#[derive(Debug)]
pub struct RpcRequest<'a> {
    address: &'a str,
    code: RequestCode,
    is_oneway: bool,
    fields: &'a mut ExtFields,
    body: &'a [u8],
}

impl RpcRequest<'_> {
    /// Where to: `host:port` of a name server or broker.
    pub fn address(&self) -> &str {
        self.address
    }

    /// What is asked.
    pub fn code(&self) -> RequestCode {
        self.code
    }

    /// Whether there will be no answer.
    pub fn is_oneway(&self) -> bool {
        self.is_oneway
    }

    /// The header's fields, by the names that they have on the wire, in no special order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter()
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// Puts a field into the header, in the place of one that has this name. Servers pass over fields that they do not
    /// know.
    pub fn put(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        self.fields.set(name.as_ref(), value.as_ref());
    }

    /// The body as it travels.
    pub fn body(&self) -> &[u8] {
        self.body
    }
}

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RpcCall<'a> {
    /// Who was asked: `host:port` of a name server or broker.
    pub address: &'a str,
    /// What was asked.
    pub code: RequestCode,
    /// From handing the request to the connection, which may have had to be made, until now.
    pub took: Duration,
}

/// What a name server or broker has answered.
#[derive(Debug, Clone, Copy)]
pub struct RpcAnswer<'a>(&'a RemotingCommand);

impl RpcAnswer<'_> {
    /// [`ResponseCode::SUCCESS`], or how it went instead.
    pub fn code(&self) -> ResponseCode {
        self.0.response_code()
    }

    /// The peer's words; empty where it has none.
    pub fn remark(&self) -> &str {
        self.0.remark.as_deref().unwrap_or_default()
    }

    /// The header's fields, in no special order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.ext_fields.iter()
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.ext_fields.get(name)
    }

    /// The body as it travelled.
    pub fn body(&self) -> &[u8] {
        &self.0.body
    }
}

/// The hooks of a client, in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct RpcHooks(Vec<Arc<dyn RpcHook>>);

impl RpcHooks {
    pub(crate) fn add(&mut self, hook: Arc<dyn RpcHook>) {
        self.0.push(hook);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn RpcHook>> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn before(
        &self,
        address: &Arc<str>,
        code: RequestCode,
        is_oneway: bool,
        fields: &mut ExtFields,
        body: &[u8],
    ) -> Result<(), RequestError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut request = RpcRequest { address, code, is_oneway, fields, body };
        let ask = |hook: &Arc<dyn RpcHook>| {
            catch_unwind(AssertUnwindSafe(|| hook.before(&mut request)))
                .unwrap_or_else(|panic| Err(format!("the hook panicked: {}", panic_message(panic.as_ref()))))
        };
        let allowed = self.0.iter().try_for_each(ask).and_then(|()| check_size(fields));
        allowed.map_err(|reason| RequestError::Forbidden { address: Arc::clone(address), code, reason })
    }

    pub(super) fn after(&self, call: &RpcCall<'_>, answer: Result<&RemotingCommand, &RequestError>) {
        let answer = answer.map(RpcAnswer);
        for hook in &self.0 {
            if let Err(panic) =
                catch_unwind(AssertUnwindSafe(|| hook.after(call, answer.as_ref().map_err(|error| *error))))
            {
                let reason = panic_message(panic.as_ref());
                error!(address = call.address, code = %call.code, reason, "an RPC hook panicked, the answer goes its way");
            }
        }
    }
}

/// That the fields have a form on the wire.
fn check_size(fields: &ExtFields) -> Result<(), String> {
    let all = fields.len_bytes();
    if all > MAX_FIELDS_BYTES {
        return Err(format!(
            "with what hooks have put, its fields have {all} bytes; {MAX_FIELDS_BYTES} at most"
        ));
    }
    match fields.iter().find(|(name, _)| name.len() > MAX_NAME_BYTES) {
        Some((name, _)) => Err(format!(
            "a hook has put a field whose name has {} bytes; {MAX_NAME_BYTES} at most",
            name.len()
        )),
        None => Ok(()),
    }
}

impl fmt::Debug for RpcHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RpcHooks").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Put(&'static str, String);

    impl RpcHook for Put {
        fn before(&self, request: &mut RpcRequest<'_>) -> Result<(), String> {
            request.put(self.0, &self.1);
            Ok(())
        }
    }

    struct Panics;

    impl RpcHook for Panics {
        fn before(&self, _: &mut RpcRequest<'_>) -> Result<(), String> {
            panic!("before")
        }

        fn after(&self, _: &RpcCall<'_>, _: Result<&RpcAnswer<'_>, &RequestError>) {
            panic!("after")
        }
    }

    fn before(hooks: Vec<Arc<dyn RpcHook>>) -> Result<ExtFields, String> {
        let mut fields = ExtFields::default();
        fields.put("topic", "t");
        let ran = RpcHooks(hooks).before(&"a:1".into(), RequestCode::PULL_MESSAGE, false, &mut fields, b"");
        ran.map(|()| fields).map_err(|error| error.to_string())
    }

    #[test]
    fn a_hook_sees_what_those_before_it_have_put() {
        let fields = before(vec![
            Arc::new(Put("zone", "a".to_owned())),
            Arc::new(Put("zone", "b".to_owned())),
            Arc::new(Put("x", String::new())),
        ]);
        let fields = fields.unwrap();
        assert_eq!(Vec::from_iter(fields.iter()), [("topic", "t"), ("zone", "b"), ("x", "")]);
    }

    #[test]
    fn what_has_no_form_on_the_wire_is_refused() {
        let long: &'static str = String::leak("n".repeat(MAX_NAME_BYTES + 1));
        let error = before(vec![Arc::new(Put(long, String::new()))]).unwrap_err();
        assert!(error.contains("a:1") && error.contains("32768 bytes; 32767 at most"), "{error}");
        let error = before(vec![Arc::new(Put("x", "v".repeat(MAX_FIELDS_BYTES)))]).unwrap_err();
        assert!(error.contains("2097152 at most"), "{error}");
    }

    #[test]
    fn a_hook_that_panics_ends_one_request_and_nothing_else() {
        let error = before(vec![Arc::new(Panics)]).unwrap_err();
        assert!(error.contains("PULL_MESSAGE") && error.contains("the hook panicked: before"), "{error}");
        let call = RpcCall { address: "a:1", code: RequestCode::PULL_MESSAGE, took: Duration::ZERO };
        let error = RequestError::ShutDown { address: "a:1".into() };
        RpcHooks(vec![Arc::new(Panics)]).after(&call, Err(&error));
    }
}
