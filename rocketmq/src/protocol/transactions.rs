//! What producers and brokers tell each other about transactions.
//!
//! Source: `protocol.md` section 2.8.

use std::sync::Arc;

use super::header::{Header, Request, header};
use super::{ExtFields, Field, HeaderError, RequestCode};

header! {
    /// What has become of a transaction (37); without an answer. Its remark says why that is not known.
    EndTransaction {
        /// 5.x: by which the right to do so is checked.
        topic: Option<Arc<str>> = "topic",
        producer_group: Arc<str> = "producerGroup",
        /// Where the half message stands in the queue of all half messages.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Where it stands in the commit log.
        commit_log_offset: i64 = "commitLogOffset",
        /// The bits of [`sys_flag`](crate::message::sys_flag); 0 where it is still not known.
        commit_or_rollback: i32 = "commitOrRollback",
        /// Whether the broker has asked.
        from_transaction_check: Option<bool> = "fromTransactionCheck",
        msg_id: String = "msgId",
        transaction_id: Option<String> = "transactionId",
        broker_name: Option<Arc<str>> = "bname",
    }
}

header! {
    /// What has become of this transaction? (39); from a broker to a producer of its group, with the half message as it
    /// stands now. The answer is an [`EndTransaction`] with these offsets.
    CheckTransactionState {
        topic: Option<String> = "topic",
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        msg_id: Option<String> = "msgId",
        transaction_id: Option<String> = "transactionId",
        offset_msg_id: Option<String> = "offsetMsgId",
        broker_name: Option<String> = "bname",
    }
}

impl Request for EndTransaction {
    const CODE: RequestCode = RequestCode::END_TRANSACTION;
    type Response = ();
}

impl Request for CheckTransactionState {
    const CODE: RequestCode = RequestCode::CHECK_TRANSACTION_STATE;
    type Response = ();
}
