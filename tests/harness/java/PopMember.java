import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * A member of groups whose brokers say how messages come: "NAME-SERVER" and, for each group, "GROUP INVISIBLE-MILLIS", which is also
 * the name of its topic. Prints "GROUP begin BODY" and "GROUP done BODY"; with a body that starts with "hold" it is never done.
 */
public class PopMember {
    public static void main(String[] args) throws Exception {
        System.setProperty("rocketmq.client.rebalance.waitInterval", "500");
        for (int i = 1; i < args.length; i += 2) {
            start(args[0], args[i], Long.parseLong(args[i + 1]));
        }
        System.out.println("started");
    }

    private static void start(String servers, String group, long invisible) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(servers);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setClientRebalance(false);
        consumer.setPopInvisibleTime(invisible);
        consumer.subscribe(group, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                String body = new String(message.getBody(), StandardCharsets.UTF_8);
                System.out.println(group + " begin " + body);
                if (body.startsWith("hold")) {
                    hold();
                }
                System.out.println(group + " done " + body);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
    }

    private static void hold() {
        try {
            Thread.sleep(Long.MAX_VALUE);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
