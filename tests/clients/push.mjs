// What `senders.rs` has the package of npm do. Arguments: its folder, the API, an app key of the app
// "shop", the broker.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const [dist, base, key, broker] = process.argv.slice(2);
const { Sender } = await import(pathToFileURL(`${dist}/index.js`).href);
const { Device } = await import(pathToFileURL(`${dist}/device.js`).href);

const timer = setTimeout(() => {
  console.log("it takes too long");
  process.exit(1);
}, 30_000);

const sender = new Sender(base, "shop", key);
const put = await sender.putDevice("page-1", { platform: "web", tags: ["vip"] });
assert.equal(put.online, false);

const came = [];
let wake = () => undefined;
async function next() {
  while (came.length === 0) await new Promise((resolve) => (wake = resolve));
  return came.shift();
}
function add(one) {
  came.push(one);
  wake();
}

const page = new Device({
  url: broker,
  device: "page-1",
  token: async () => (await sender.token("page-1", "1h")).token,
})
  .onMessage(({ id, notification }) => {
    page.shown(id);
    add(`${id} ${notification.title}`);
  })
  .onRecall((id) => add(`${id} recalled`))
  .onEvent((event) => event.type === "connected" && add("connected"))
  .connect();
assert.equal(await next(), "connected");
page.subscribe("news");

// Messages of this class go out at any hour and in any number.
const titled = (title) => ({
  target: { device: "page-1" },
  notification: { title },
  class: "transactional",
});
const sent = await sender.send(titled("Hi"), "order-7");
const again = await sender.send(titled("Hi"), "order-7");
assert.equal(again.message.id, sent.message.id);
assert.deepEqual([sent.replayed, again.replayed], [false, true]);
assert.equal(await next(), `${sent.message.id} Hi`);
console.log("shown");

let last;
for await (const live of sender.live(sent.message.id)) last = live;
assert.equal(last.state, "finished");
assert.equal(last.funnel.delivered, 1);
while ((await sender.funnel(sent.message.id)).shown === 0) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
console.log("counted");

function* numbered() {
  for (let n = 0; n < 1200; n++) yield titled(String(n));
}
const ids = [];
for await (const { message } of sender.stream(numbered())) ids.push(message.id);
const shown = new Map();
while (shown.size < 1200) {
  const [id, title] = (await next()).split(" ");
  assert.ok(!shown.has(id), "shown once");
  shown.set(id, title);
}
ids.forEach((id, n) => assert.equal(shown.get(id), String(n)));
console.log("streamed");

await sender.recall(sent.message.id);
assert.equal(await next(), `${sent.message.id} recalled`);
await assert.rejects(sender.recall(sent.message.id), (error) => error.problem.status === 409);
await assert.rejects(sender.send({ target: { expression: "and" } }), { name: "ProblemError" });

let seen = 0;
for await (const entry of sender.audit({ message: sent.message.id, limit: 2 })) seen += entry.seq > 0;
assert.ok(seen >= 4, `${seen} entries`);
assert.deepEqual(await page.stop(), []);
clearTimeout(timer);
console.log("done");
