import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Most of what users do with Apache's own client. "NAME-SERVER PREFIX COMMAND..." runs the commands at the same time, each with
 * the topic PREFIX-COMMAND of one queue, and prints what each saw as lines "COMMAND ...". Whatever fails ends the program.
 */
public class Client {
    private static String servers;

    private interface Part {
        void run(String topic) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        System.setProperty("rocketmq.client.rebalance.waitInterval", "500");
        servers = args[0];
        ExecutorService threads = Executors.newCachedThreadPool();
        for (int i = 2; i < args.length; i++) {
            String command = args[i];
            Part part = part(command);
            threads.submit(() -> {
                try {
                    part.run(args[1] + "-" + command);
                    System.out.println(command + " done");
                } catch (Throwable e) {
                    e.printStackTrace();
                    System.exit(1);
                }
            });
        }
    }

    private static Part part(String command) {
        switch (command) {
            case "send":
                return Client::send;
            case "retry":
                return Client::retry;
            case "order":
                return Client::order;
            case "broadcast":
                return Client::broadcast;
            case "transaction":
                return Client::transaction;
            case "pull":
                return Client::pull;
            default:
                throw new IllegalArgumentException(command);
        }
    }

    private static void send(String topic) throws Exception {
        DefaultMQProducer producer = producer(topic);
        say("send", "one", producer.send(message(topic, "one")));
        SendResult selected = producer.send(message(topic, "selected"), (queues, message, index) -> queues.get((Integer) index), 0);
        say("send", "selected", selected);
        List<Message> batch = new ArrayList<>();
        for (String body : new String[] {"first", "second", "third"}) {
            batch.add(message(topic, body));
        }
        SendResult result = producer.send(batch);
        say("send", "batch of " + result.getMsgId().split(",").length, result);
        CountDownLatch called = new CountDownLatch(1);
        producer.send(message(topic, "asynchronous"), new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                say("send", "asynchronous", result);
                called.countDown();
            }

            @Override
            public void onException(Throwable e) {
                e.printStackTrace();
            }
        });
        await(called);
        say("send", "large", producer.send(message(topic, String.join("", Collections.nCopies(2000, "large ")))));
        Message other = message(topic, "of another tag");
        other.setTags("other");
        SendResult last = producer.send(other);
        say("send", "other", last);
        say("send", "viewed " + text(producer.viewMessage(topic, last.getOffsetMsgId())));
        Message delayed = message(topic, "delayed");
        delayed.setDelayTimeLevel(2);
        say("send", "delayed " + producer.send(delayed).getSendStatus());
        producer.sendOneway(message(topic, "one way"));

        Heard heard = new Heard(9);
        DefaultMQPushConsumer consumer = consumer(topic);
        consumer.subscribe(topic, "tag || more");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                String body = text(message);
                heard.note("got " + body.substring(0, Math.min(20, body.length())) + " " + body.length() + " " + message.getTags()
                    + " " + message.getKeys() + " " + message.getUserProperty("of") + " " + message.getReconsumeTimes() + " "
                    + message.getTopic().equals(topic));
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        say("send", heard.all());
        consumer.shutdown();
        producer.shutdown();
    }

    private static void retry(String topic) throws Exception {
        DefaultMQProducer producer = producer(topic);
        Map<String, String> ids = new ConcurrentHashMap<>();
        for (String body : new String[] {"good", "fails once", "throws once", "null once", "fails"}) {
            ids.put(body, producer.send(message(topic, body)).getMsgId());
        }
        Heard heard = new Heard(10);
        DefaultMQPushConsumer consumer = consumer(topic);
        consumer.setMaxReconsumeTimes(2);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt message = messages.get(0);
            String body = text(message);
            boolean isFirst = message.getReconsumeTimes() == 0;
            heard.note(body + " " + message.getReconsumeTimes() + " " + message.getTopic().equals(topic) + " "
                + message.getMsgId().equals(ids.get(body)) + " " + message.getTags() + " " + message.getUserProperty("of"));
            if (body.equals("throws once") && isFirst) {
                throw new IllegalStateException("a listener that throws");
            }
            if (body.equals("null once") && isFirst) {
                return null;
            }
            return body.equals("fails") || body.equals("fails once") && isFirst
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        say("retry", heard.all());
        deadLetter("retry", topic);
        consumer.shutdown();
        producer.shutdown();
    }

    private static void order(String topic) throws Exception {
        DefaultMQProducer producer = producer(topic);
        for (int i = 0; i < 5; i++) {
            producer.send(message(topic, "" + i), (queues, message, key) -> queues.get(0), "key");
        }
        CountDownLatch last = new CountDownLatch(1);
        DefaultMQPushConsumer consumer = consumer(topic);
        consumer.setMaxReconsumeTimes(2);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            MessageExt message = messages.get(0);
            String body = text(message);
            System.out.println("order " + body + " " + message.getReconsumeTimes());
            context.setSuspendCurrentQueueTimeMillis(20);
            if (body.equals("4")) {
                last.countDown();
            }
            boolean fails = body.equals("3") || body.equals("1") && message.getReconsumeTimes() < 1;
            return fails ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        await(last);
        deadLetter("order", topic);
        consumer.shutdown();
        producer.shutdown();
    }

    private static void broadcast(String topic) throws Exception {
        DefaultMQProducer producer = producer(topic);
        for (int i = 0; i < 4; i++) {
            producer.send(message(topic, "" + i));
        }
        for (String name : new String[] {"first", "second"}) {
            Heard heard = new Heard(4);
            DefaultMQPushConsumer consumer = consumer(topic);
            consumer.setInstanceName(topic + name);
            setBroadcasting(consumer);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                messages.forEach(message -> heard.note(name + " " + text(message)));
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            say("broadcast", heard.all());
        }
        producer.shutdown();
    }

    private static void transaction(String topic) throws Exception {
        Heard checked = new Heard(2);
        Heard heard = new Heard(2);
        DefaultMQPushConsumer consumer = consumer(topic);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> heard.note("got " + text(message) + " " + message.getTags() + " " + message.getUserProperty("of")));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        TransactionMQProducer producer = new TransactionMQProducer(topic + "-producer");
        producer.setNamesrvAddr(servers);
        producer.setSendMsgTimeout(15000);
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                return (LocalTransactionState) argument;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                // A broker may ask more than once.
                checked.note("checked " + text(message) + " " + message.getTags() + " " + message.getTopic().equals(topic));
                return text(message).equals("later") ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.ROLLBACK_MESSAGE;
            }
        });
        producer.start();
        Object[][] all = {{"at once", LocalTransactionState.COMMIT_MESSAGE}, {"never", LocalTransactionState.ROLLBACK_MESSAGE},
            {"later", LocalTransactionState.UNKNOW}, {"not later", LocalTransactionState.UNKNOW}};
        for (Object[] each : all) {
            SendResult result = producer.sendMessageInTransaction(message(topic, (String) each[0]), each[1]);
            say("transaction", "sent " + each[0] + " " + result.getSendStatus());
        }
        say("transaction", checked.all());
        say("transaction", heard.all());
        consumer.shutdown();
        producer.shutdown();
    }

    private static void pull(String topic) throws Exception {
        DefaultMQProducer producer = producer(topic);
        for (int i = 0; i < 8; i++) {
            producer.send(message(topic, "" + i));
        }
        DefaultLitePullConsumer lite = new DefaultLitePullConsumer(topic + "-lite");
        lite.setNamesrvAddr(servers);
        lite.setAutoCommit(false);
        lite.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        lite.start();
        Collection<MessageQueue> queues = lite.fetchMessageQueues(topic);
        MessageQueue queue = queues.iterator().next();
        lite.assign(queues);
        // A pull that is on its way at the first seek may bring its messages after it.
        say("pull", "assigned" + poll(lite, 8));
        lite.seek(queue, 5);
        say("pull", "from 5" + poll(lite, 3));
        lite.seekToBegin(queue);
        say("pull", "from the beginning" + poll(lite, 8));
        lite.commitSync();
        say("pull", "committed " + lite.committed(queue));
        say("pull", "offset of the first time " + lite.offsetForTimestamp(queue, 0L));
        lite.shutdown();

        DefaultLitePullConsumer subscribed = new DefaultLitePullConsumer(topic + "-subscribed");
        subscribed.setNamesrvAddr(servers);
        subscribed.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        subscribed.subscribe(topic, "*");
        subscribed.start();
        say("pull", "subscribed" + poll(subscribed, 8));
        subscribed.shutdown();

        plainPull(topic, queue);
        producer.shutdown();
    }

    @SuppressWarnings("deprecation")
    private static void plainPull(String topic, MessageQueue queue) throws Exception {
        DefaultMQPullConsumer plain = new DefaultMQPullConsumer(topic + "-plain");
        plain.setNamesrvAddr(servers);
        plain.start();
        say("pull", "some", plain.pull(queue, "*", 2, 3));
        say("pull", "the end", plain.pull(queue, "*", 8, 3));
        say("pull", "beyond", plain.pull(queue, "*", 100, 3));
        say("pull", "other tags", plain.pull(queue, "other", 0, 3));
        say("pull", "one tag", plain.pull(queue, "tag || other", 0, 3));
        say("pull", "from " + plain.minOffset(queue) + " to " + plain.maxOffset(queue) + " with "
            + plain.searchOffset(queue, 0) + " " + (0 < plain.earliestMsgStoreTime(queue)));
        plain.updateConsumeOffset(queue, 6);
        plain.getOffsetStore().updateConsumeOffsetToBroker(queue, 6, false);
        say("pull", "stored " + plain.fetchConsumeOffset(queue, true));
        plain.shutdown();
    }

    private static String poll(DefaultLitePullConsumer consumer, int count) {
        StringBuilder bodies = new StringBuilder();
        for (int found = 0; found < count; ) {
            for (MessageExt message : consumer.poll(1000)) {
                bodies.append(' ').append(text(message));
                found++;
            }
        }
        return bodies.toString();
    }

    private static void say(String command, String what, PullResult result) {
        StringBuilder line = new StringBuilder(what + " " + result.getPullStatus() + " next " + result.getNextBeginOffset() + " of "
            + result.getMinOffset() + " to " + result.getMaxOffset());
        if (result.getMsgFoundList() != null) {
            result.getMsgFoundList().forEach(message -> line.append(' ').append(text(message)));
        }
        say(command, line.toString());
    }

    private static void say(String command, String what, SendResult result) {
        say(command, what + " " + result.getSendStatus() + " " + result.getMessageQueue().getQueueId() + " " + result.getQueueOffset());
    }

    private static void say(String command, Collection<String> lines) {
        lines.forEach(line -> say(command, line));
    }

    private static void say(String command, String line) {
        System.out.println(command + " " + line);
    }

    private static DefaultMQProducer producer(String topic) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(topic + "-producer");
        producer.setNamesrvAddr(servers);
        producer.setSendMsgTimeout(15000);
        producer.start();
        return producer;
    }

    private static Message message(String topic, String body) {
        Message message = new Message(topic, "tag", "key of " + body.substring(0, 1), body.getBytes(StandardCharsets.UTF_8));
        message.putUserProperty("of", "Java");
        return message;
    }

    private static DefaultMQPushConsumer consumer(String topic) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(topic + "-group");
        consumer.setNamesrvAddr(servers);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // The retry topic is made while it starts.
        consumer.setPollNameServerInterval(500);
        return consumer;
    }

    /** The enumeration is in another package since 5.0. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    private static void setBroadcasting(DefaultMQPushConsumer consumer) throws Exception {
        for (java.lang.reflect.Method method : DefaultMQPushConsumer.class.getMethods()) {
            if (method.getName().equals("setMessageModel")) {
                method.invoke(consumer, Enum.valueOf((Class) method.getParameterTypes()[0], "BROADCASTING"));
            }
        }
    }

    /** The one dead letter of the group of a topic, as another consumer gets it. */
    private static void deadLetter(String command, String topic) throws Exception {
        Heard heard = new Heard(1);
        DefaultMQPushConsumer consumer = consumer(topic + "-dead");
        consumer.subscribe("%DLQ%" + topic + "-group", "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> heard.note("dead letter " + text(message) + " " + message.getTags() + " "
                + message.getUserProperty("of") + " " + topic.equals(message.getProperty("RETRY_TOPIC"))));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        say(command, heard.all());
        consumer.shutdown();
    }

    private static String text(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    private static void await(CountDownLatch latch) throws Exception {
        if (!latch.await(100, TimeUnit.SECONDS)) {
            throw new IllegalStateException("the time is up");
        }
    }

    /** So many different lines, in the order of the alphabet. */
    private static class Heard {
        private final TreeSet<String> lines = new TreeSet<>();
        private final CountDownLatch missing;

        Heard(int count) {
            missing = new CountDownLatch(count);
        }

        synchronized void note(String line) {
            if (lines.add(line)) {
                missing.countDown();
            }
        }

        Collection<String> all() throws Exception {
            if (!missing.await(100, TimeUnit.SECONDS)) {
                synchronized (this) {
                    throw new IllegalStateException("the time is up, heard only " + lines);
                }
            }
            synchronized (this) {
                return new ArrayList<>(lines);
            }
        }
    }
}
