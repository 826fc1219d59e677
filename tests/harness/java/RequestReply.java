import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.RequestTimeoutException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Asks and answers, as users of Apache's own client do. */
public class RequestReply {
    public static void main(String[] args) throws Exception {
        String servers = args[1];
        String topic = args[2];
        String group = args[3];
        DefaultMQProducer producer = new DefaultMQProducer(group + "-producer");
        producer.setNamesrvAddr(servers);
        producer.setSendMsgTimeout(15000);
        producer.start();
        if (args[0].equals("request")) {
            for (int i = 4; i < args.length; i++) {
                request(producer, topic, args[i]);
            }
            System.exit(0);
        }
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(servers);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> reply(producer, messages));
        consumer.start();
        System.out.println("ready");
    }

    private static void request(DefaultMQProducer producer, String topic, String body) throws Exception {
        try {
            Message reply = producer.request(new Message(topic, body.getBytes(StandardCharsets.UTF_8)), 30000);
            System.out.println("reply: " + new String(reply.getBody(), StandardCharsets.UTF_8) + " " + reply.getTags());
        } catch (RequestTimeoutException e) {
            System.out.println("no reply");
        }
    }

    private static ConsumeConcurrentlyStatus reply(DefaultMQProducer producer, List<MessageExt> messages) {
        for (MessageExt message : messages) {
            try {
                String body = "Java heard " + new String(message.getBody(), StandardCharsets.UTF_8);
                producer.send(MessageUtil.createReplyMessage(message, body.getBytes(StandardCharsets.UTF_8)));
            } catch (Exception e) {
                e.printStackTrace();
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
        }
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
    }
}
