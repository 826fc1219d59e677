import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMachineRoomNearby;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragelyByCircle;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueByConfig;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueByMachineRoom;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueConsistentHash;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * How Apache's own client shares queues. "shares" prints who would have which queue, for many groups, without a server;
 * "members NAME-SERVER TOPIC BROKER" joins a group TOPIC-STRATEGY for each strategy, and prints what its member has;
 * "room NAME-SERVER TOPIC ROOM" does so for the strategy that wants brokers of certain rooms.
 */
public class Strategies {
    public static void main(String[] args) throws Exception {
        if (args[0].equals("shares")) {
            shares();
        } else if (args[0].equals("room")) {
            AllocateMessageQueueByMachineRoom room = new AllocateMessageQueueByMachineRoom();
            room.setConsumeridcs(Collections.singleton(args[3]));
            join(args[1], args[2], Collections.singletonList(room));
        } else {
            members(args[1], args[2], args[3]);
        }
    }

    private static void shares() throws Exception {
        AllocateMessageQueueByMachineRoom room = new AllocateMessageQueueByMachineRoom();
        room.setConsumeridcs(Collections.singleton("east"));
        List<AllocateMessageQueueStrategy> strategies = Arrays.asList(
            new AllocateMessageQueueAveragely(), new AllocateMessageQueueAveragelyByCircle(),
            new AllocateMessageQueueConsistentHash(), room,
            new AllocateMachineRoomNearby(new AllocateMessageQueueAveragely(), new NamedRooms()));
        for (int each = 1; each <= 6; each++) {
            List<MessageQueue> queues = new ArrayList<>();
            for (String broker : new String[] {"east@a", "west@b"}) {
                for (int id = 0; id < each; id++) {
                    queues.add(new MessageQueue("topic", broker, id));
                }
            }
            for (int count = 1; count <= 7; count++) {
                List<String> members = new ArrayList<>();
                for (int i = 0; i < count; i++) {
                    members.add("10.0.0." + i + "@" + 1000 * i + "#77@" + new String[] {"east", "north", "west"}[i % 3]);
                }
                for (AllocateMessageQueueStrategy strategy : strategies) {
                    for (String member : members) {
                        StringBuilder line = new StringBuilder("share " + strategy.getName() + " " + each + " " + count + " " + member);
                        for (MessageQueue queue : strategy.allocate("group", member, queues, members)) {
                            line.append(' ').append(queue.getBrokerName()).append('/').append(queue.getQueueId());
                        }
                        System.out.println(line);
                    }
                }
            }
        }
    }

    private static void members(String servers, String topic, String broker) throws Exception {
        AllocateMessageQueueByConfig fixed = new AllocateMessageQueueByConfig();
        List<MessageQueue> queues = new ArrayList<>();
        for (int id = 0; id < 4; id++) {
            queues.add(new MessageQueue(topic, broker, id));
        }
        fixed.setMessageQueueList(queues);
        join(servers, topic, Arrays.asList(
            new AllocateMessageQueueAveragely(), new AllocateMessageQueueAveragelyByCircle(),
            new AllocateMessageQueueConsistentHash(), fixed,
            new AllocateMachineRoomNearby(new AllocateMessageQueueAveragely(), new HalvesOfABroker())));
    }

    private static void join(String servers, String topic, List<AllocateMessageQueueStrategy> strategies) throws Exception {
        System.setProperty("rocketmq.client.rebalance.waitInterval", "1000");
        Map<String, DefaultMQPushConsumer> consumers = new LinkedHashMap<>();
        for (AllocateMessageQueueStrategy strategy : strategies) {
            DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(topic + "-" + strategy.getName());
            consumer.setNamesrvAddr(servers);
            consumer.setUnitName("east");
            consumer.setAllocateMessageQueueStrategy(strategy);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
            consumer.start();
            consumers.put(strategy.getName(), consumer);
        }
        Map<String, String> told = new LinkedHashMap<>();
        while (true) {
            for (Map.Entry<String, DefaultMQPushConsumer> entry : consumers.entrySet()) {
                TreeSet<String> owned = new TreeSet<>();
                for (MessageQueue queue : entry.getValue().getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet()) {
                    if (queue.getTopic().equals(topic)) {
                        owned.add(queue.getBrokerName() + "/" + queue.getQueueId());
                    }
                }
                String line = "owns " + entry.getKey() + " " + owned.toString().replaceAll("[\\[\\] ]", "");
                if (!line.equals(told.put(entry.getKey(), line))) {
                    System.out.println(line);
                }
            }
            Thread.sleep(50);
        }
    }

    /** The first four queues are in the room east, the others in west; a member is in the room that its unit names. */
    private static class HalvesOfABroker implements AllocateMachineRoomNearby.MachineRoomResolver {
        @Override
        public String brokerDeployIn(MessageQueue queue) {
            return queue.getQueueId() < 4 ? "east" : "west";
        }

        @Override
        public String consumerDeployIn(String clientId) {
            return clientId.split("@")[2];
        }
    }

    /** A broker is named room@broker. */
    private static class NamedRooms extends HalvesOfABroker {
        @Override
        public String brokerDeployIn(MessageQueue queue) {
            return queue.getBrokerName().split("@")[0];
        }
    }
}
