import { Sender } from "@sextant/push";
import { Device } from "@sextant/push/device";

const sender = new Sender("http://127.0.0.1:7701", "shop", "spk_…");
const { token } = await sender.token("phone-1", "24h");
const phone = new Device({ url: "ws://127.0.0.1:1883/mqtt", device: "phone-1", token })
  .onMessage(({ id, notification }) => {
    console.log(notification?.title);
    phone.shown(id);
  })
  .onRecall((id) => console.log(`${id} is gone`))
  .connect();
const target = { device: "phone-1" };
const { message } = await sender.send({ target, notification: { title: "Hi" } });
for await (const { state, funnel } of sender.live(message.id)) console.log(state, funnel.shown);
await phone.stop();
