/* The journey of `clients.rs` with paho C. Arguments: URI, version (4 or 5), client identifier. */

#include <MQTTClient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void fail(const char *what, int code)
{
    printf("failed: %s: %d\n", what, code);
    exit(1);
}

/* Whether there was a session. */
static int go(MQTTClient client, int five, const char *will_topic)
{
    MQTTClient_connectOptions four = MQTTClient_connectOptions_initializer;
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer5;
    MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
    will.topicName = will_topic;
    will.message = "gone";
    will.qos = 1;
    if (!five) {
        options = four;
        options.MQTTVersion = MQTTVERSION_3_1_1;
        options.cleansession = 0;
        options.will = &will;
        int code = MQTTClient_connect(client, &options);
        if (code != MQTTCLIENT_SUCCESS)
            fail("connect", code);
        return options.returned.sessionPresent;
    }
    MQTTProperties properties = MQTTProperties_initializer;
    MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL};
    expiry.value.integer4 = 60;
    MQTTProperties_add(&properties, &expiry);
    options.cleanstart = 0;
    options.will = &will;
    MQTTResponse response = MQTTClient_connect5(client, &options, &properties, NULL);
    if (response.reasonCode != MQTTREASONCODE_SUCCESS)
        fail("connect", response.reasonCode);
    MQTTResponse_free(response);
    MQTTProperties_free(&properties);
    return options.returned.sessionPresent;
}

static void receive(MQTTClient client)
{
    char *topic = NULL;
    int topic_len = 0;
    MQTTClient_message *message = NULL;
    int code = MQTTClient_receive(client, &topic, &topic_len, &message, 10000);
    if (code != MQTTCLIENT_SUCCESS || message == NULL)
        fail("receive", code);
    printf("got %d %.*s\n", message->qos, message->payloadlen, (char *)message->payload);
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        fail("arguments", argc);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int five = strcmp(argv[2], "5") == 0;
    char topic[128], will_topic[128];
    snprintf(will_topic, sizeof will_topic, "will/%s", argv[3]);
    MQTTClient client;
    MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
    create.MQTTVersion = five ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
    int code = MQTTClient_createWithOptions(&client, argv[1], argv[3], MQTTCLIENT_PERSISTENCE_NONE,
                                            NULL, &create);
    if (code != MQTTCLIENT_SUCCESS)
        fail("create", code);
    go(client, five, will_topic);
    printf("connected\n");
    for (int qos = 0; qos <= 2; qos++) {
        snprintf(topic, sizeof topic, "c/%s/%d", argv[3], qos);
        int granted = five ? (int)MQTTClient_subscribe5(client, topic, qos, NULL, NULL).reasonCode
                           : MQTTClient_subscribe(client, topic, qos);
        if (granted != (five ? qos : MQTTCLIENT_SUCCESS))
            fail("subscribe", granted);
        MQTTClient_deliveryToken token;
        if (five)
            code = MQTTClient_publish5(client, topic, 4, "live", qos, 0, NULL, &token).reasonCode;
        else
            code = MQTTClient_publish(client, topic, 4, "live", qos, 0, &token);
        if (code != MQTTCLIENT_SUCCESS)
            fail("publish", code);
        if (qos > 0 && MQTTClient_waitForCompletion(client, token, 10000) != MQTTCLIENT_SUCCESS)
            fail("acknowledgement", qos);
        receive(client);
    }
    printf("left\n");
    if (five) {
        MQTTClient_disconnect5(client, 0, MQTTREASONCODE_DISCONNECT_WITH_WILL_MESSAGE, NULL);
        sleep(1);
    } else {
        /* This version cannot ask for its will, and the library never leaves without a word: the
         * next connection takes over from this one. */
        code = MQTTClient_createWithOptions(&client, argv[1], argv[3], MQTTCLIENT_PERSISTENCE_NONE,
                                            NULL, &create);
        if (code != MQTTCLIENT_SUCCESS)
            fail("create", code);
    }
    if (go(client, five, will_topic))
        printf("session present\n");
    receive(client);
    code = five ? MQTTClient_disconnect5(client, 1000, MQTTREASONCODE_SUCCESS, NULL)
                : MQTTClient_disconnect(client, 1000);
    if (code != MQTTCLIENT_SUCCESS)
        fail("disconnect", code);
    printf("done\n");
    return 0;
}
