import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Leaves transactions of one group open, and answers for those of another one. */
public class Transactions {
    public static void main(String[] args) throws Exception {
        String servers = args[0];
        String topic = args[1];
        TransactionMQProducer answering = start(servers, args[2], true);
        // Brokers ask whom they have heard of, and Java's producers of 5.x know none before their first message.
        answering.send(new Message(topic, "sent by Java".getBytes(StandardCharsets.UTF_8)));
        TransactionMQProducer leaving = start(servers, args[3], false);
        for (int i = 4; i < args.length; i++) {
            Message message = new Message(topic, "java", "k", args[i].getBytes(StandardCharsets.UTF_8));
            message.putUserProperty("own", "p");
            System.out.println("left: " + leaving.sendMessageInTransaction(message, null).getMsgId());
        }
        leaving.shutdown();
        System.out.println("ready");
    }

    private static TransactionMQProducer start(String servers, String group, boolean knows) throws Exception {
        TransactionMQProducer producer = new TransactionMQProducer(group);
        producer.setNamesrvAddr(servers);
        producer.setSendMsgTimeout(15000);
        producer.setHeartbeatBrokerInterval(1000);
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                return LocalTransactionState.UNKNOW;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                return knows ? check(message) : LocalTransactionState.UNKNOW;
            }
        });
        producer.start();
        return producer;
    }

    private static LocalTransactionState check(MessageExt message) {
        String body = new String(message.getBody(), StandardCharsets.UTF_8);
        System.out.println("checked: " + String.join("|", body, message.getTopic(), message.getTags(),
            message.getKeys(), message.getUserProperty("own"), message.getTransactionId()));
        return body.contains("rolled back") ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.COMMIT_MESSAGE;
    }
}
