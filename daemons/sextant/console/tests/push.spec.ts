// The sender's pages: what a person does with them, from the first app to a recall.
//
// The tests of this file are one story, in order: each begins with what those before it made.

import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';

import { browser, logIn, open, visit, type Stage } from './stage.js';

const APP = 'shop';
const DEVICES = 40;

let stage: Stage;
let chromium: Browser;
let page: Page;
let errors: string[];
const clients: ChildProcess[] = [];

const device = (n: number): string => `phone-${String(n).padStart(3, '0')}`;

before(async () => {
  [stage, chromium] = await Promise.all([open(), browser()]);
  ({ page, errors } = await visit(chromium));
  await logIn(stage, page);
});

after(async () => {
  for (const client of clients) client.kill();
  await chromium?.close();
  await stage?.close();
});

async function go(...parts: string[]): Promise<void> {
  await page.goto(`${stage.url}#/push/${parts.map(encodeURIComponent).join('/')}`);
}

/** The row of a table that has this text. */
const row = (text: string) => page.getByRole('row').filter({ hasText: text });

/** A device that is there: Debian's MQTT client, with a token of its own, which this gives. */
async function connect(id: string): Promise<string> {
  const { token } = (await stage.api('POST', `/apps/${APP}/devices/${id}/tokens`, { ttl: '1h' })) as { token: string };
  const [host = '', port = ''] = stage.mqtt.split(':');
  const client = spawn('mosquitto_sub', ['-h', host, '-p', port, '-V', '5', '-q', '1', '-i', id, '-u', id, '-P', token, '-t', `d/${id}/push`], { stdio: 'ignore' });
  clients.push(client);
  const isOnline = async (): Promise<boolean> =>
    ((await stage.api('GET', `/apps/${APP}/devices/${id}`)) as { online: boolean }).online;
  for (let tries = 0; !(await isOnline()); tries++) {
    assert.ok(tries < 100, `${id} is not online`);
    await new Promise((next) => setTimeout(next, 100));
  }
  return token;
}

/** Waits until a step of the funnel that is seen has as many devices. */
async function reaches(step: string, devices: number): Promise<void> {
  await page.waitForFunction(
    ([step, devices]) => {
      const row = [...document.querySelectorAll('tr')].find((row) => row.textContent?.includes(String(step)));
      return row?.querySelector('strong')?.textContent === String(devices);
    },
    [step, devices],
  );
}

test('an app is created, and a key that is shown once', async () => {
  await go('apps');
  await page.getByRole('heading', { name: 'No app yet' }).waitFor();
  await page.getByRole('button', { name: 'Create the first app…' }).click();
  await page.getByLabel('Name').fill(APP);
  await page.getByRole('button', { name: 'Create', exact: true }).click();
  await row(APP).waitFor();
  assert.equal(await page.getByLabel('App', { exact: true }).inputValue(), APP);

  await page.getByRole('button', { name: 'Create key…' }).click();
  await page.getByLabel('Name').fill('crm');
  await page.getByRole('button', { name: 'Create', exact: true }).click();
  const secret = page.getByRole('group', { name: 'The key crm.' });
  assert.match((await secret.locator('code').textContent()) ?? '', /^spk_/);
  await page.getByRole('button', { name: 'Done' }).click();
  await row('crm').waitFor();
  await page.reload();
  await row('crm').waitFor();
  assert.equal(await page.getByText('spk_').count(), 0, 'the key is not to be had again');
});

test('a name that is taken is said in the dialog', async () => {
  await page.getByRole('button', { name: 'Create key…' }).click();
  await page.getByLabel('Name').fill('crm');
  await page.getByRole('button', { name: 'Create', exact: true }).click();
  await page.getByRole('dialog').getByRole('alert').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });

  await page.getByRole('button', { name: 'Delete the key crm' }).click();
  await page.getByRole('button', { name: 'Delete it' }).click();
  await page.getByRole('heading', { name: 'No key yet' }).waitFor();
});

test('devices are found by an expression', async () => {
  for (let n = 1; n <= DEVICES; n++) {
    await stage.api('PUT', `/apps/${APP}/devices/${device(n)}`, {
      platform: n % 2 ? 'android' : 'ios',
      app_version: `2.${n % 3}.0`,
      alias: `user-${Math.ceil(n / 2)}`,
      tags: n % 4 === 0 ? ['vip'] : [],
      attributes: { city: n % 2 ? 'sz' : 'gz', age: 18 + n },
      time_zone: 'Asia/Shanghai',
      language: 'zh-CN',
      test: n === 1,
    });
  }
  await go('app', APP, 'devices');
  await page.getByText(`${DEVICES} devices`).waitFor();
  await page.getByLabel('Expression').fill('vip');
  await page.getByLabel('Expression').press('Enter');
  await page.getByText(`${DEVICES / 4} devices`).waitFor();
  assert.match(page.url(), /expression=vip/);
  await page.getByLabel('Expression').fill('city:sz and');
  await page.getByLabel('Expression').fill('city:');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByRole('heading', { name: 'The expression cannot be read' }).waitFor();
  assert.equal(await page.getByLabel('Expression').getAttribute('aria-invalid'), 'true');
});

test('a device shows what it is, and gets a token that is shown once', async () => {
  await go('app', APP, 'devices', device(4));
  await page.getByRole('heading', { name: device(4), exact: true }).waitFor();
  await page.getByText('Asia/Shanghai').waitFor();
  await page.getByText('Nothing was sent to it yet').waitFor();
  await page.getByRole('button', { name: 'Issue token…' }).click();
  await page.getByLabel('Valid for').fill('soon');
  assert.ok(await page.getByRole('button', { name: 'Issue', exact: true }).isDisabled());
  await page.getByLabel('Valid for').fill('2d');
  await page.getByRole('button', { name: 'Issue', exact: true }).click();
  assert.match((await page.getByRole('dialog').locator('code').textContent()) ?? '', /^sxd/);
  await page.getByRole('button', { name: 'Done' }).click();
  await page.getByRole('button', { name: 'Revoke tokens…' }).click();
  await page.getByRole('button', { name: 'Revoke them' }).click();
  await page.getByText('is valid any more.').first().waitFor();
});

test('composing counts the target as it is written, and a dry run sends nothing', async () => {
  await go('app', APP, 'compose');
  await page.getByText(`${DEVICES} devices`).waitFor();
  await page.getByRole('radio', { name: 'Expression' }).check();
  await page.getByRole('textbox', { name: 'Expression' }).fill('vip and city:gz');
  await page.getByText('10 devices').waitFor();

  await page.getByRole('button', { name: 'Dry run' }).click();
  await page.getByRole('alert').getByText('Write a title, a text or data.').waitFor();
  await page.getByLabel('Title').fill('Hi {{name}}');
  await page.getByLabel('Text').fill('The sale begins.');
  await page.getByRole('button', { name: 'Add a variable' }).click();
  await page.getByLabel('Name of variable 1').fill('name');
  await page.getByLabel('Value of variable 1').fill('friend');
  await page.getByRole('complementary').getByText('Hi friend').waitFor();
  await page.getByLabel('Data').fill('{"a":');
  await page.getByText('This is not JSON').first().waitFor();
  await page.getByLabel('Data').fill('{"a": 1}');
  await page.getByRole('button', { name: 'Dry run' }).click();
  await page.getByText('Would go out').waitFor();
  assert.match((await row('Targeted').textContent()) ?? '', /10/);
  const { messages } = (await stage.api('GET', `/apps/${APP}/messages`)) as { messages: unknown[] };
  assert.equal(messages.length, 0);
});

test('a message is sent after its number of devices was confirmed, and its funnel fills', async () => {
  const token = await connect(device(4));
  await go('app', APP, 'messages');
  await page.getByRole('link', { name: 'Compose the first one' }).click();
  await page.getByLabel('Name', { exact: true }).fill('Autumn');
  await page.getByRole('radio', { name: 'Expression' }).check();
  await page.getByRole('textbox', { name: 'Expression' }).fill('vip');
  // A class that is let through at any hour, and so is this test.
  await page.getByLabel('Class').selectOption('transactional');
  await page.getByLabel('Title').fill('Sale');
  await page.getByRole('button', { name: 'Send…' }).click();
  await page.getByRole('heading', { name: 'Send to 10 devices?' }).waitFor();
  await page.getByRole('button', { name: 'Send to 10' }).click();
  await page.getByRole('heading', { name: 'Autumn' }).waitFor();
  await page.getByText('Live', { exact: false }).first().waitFor();
  // Told by the daemon while it happens: nobody reloads.
  await reaches('Delivered', 1);
  const id = page.url().split('/').at(-1);
  const own = { authorization: `Bearer ${token}`, 'x-device': device(4) };
  await stage.api('POST', '/receipts', { receipts: [{ id, event: 'shown' }, { id, event: 'clicked' }] }, own);
  await reaches('Shown', 1);
  await reaches('Clicked', 1);
  await page.getByText('Half within').waitFor();
  await page.getByLabel('by').selectOption('platform');
  await page.getByRole('cell', { name: 'ios' }).waitFor();
});

test('the list of messages leads to each, and filters by state', async () => {
  await go('app', APP, 'messages');
  await row('Autumn').waitFor();
  await page.getByLabel('State').selectOption('recalled');
  await page.getByRole('heading', { name: 'No message is in this state' }).waitFor();
  await page.getByLabel('State').selectOption('');
  await page.getByRole('link', { name: 'Autumn' }).click();
  await page.getByRole('heading', { name: 'Funnel' }).waitFor();
});

test('a recall asks first, and its outcome is seen', async () => {
  await page.getByRole('button', { name: 'Recall…' }).click();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Recall…' }).click();
  await page.getByRole('button', { name: 'Recall it' }).click();
  await page.getByText('Recalled:').waitFor();
  await page.getByText('Recalled', { exact: false }).first().waitFor();
  await page.getByRole('button', { name: 'Recall…' }).waitFor({ state: 'hidden' });
});

test('the audit is searched, told as a timeline, and exported', async () => {
  await page.getByRole('link', { name: 'Its audit' }).click();
  await page.getByRole('row').nth(1).waitFor();
  assert.match(page.url(), /message=/);
  await page.getByText('requested').first().waitFor();
  await page.getByLabel('Device').fill(device(4));
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByRole('heading', { name: `What became of this message on ${device(4)}` }).waitFor();
  await page.getByRole('listitem').getByText('Delivered').waitFor();
  const href = await page.getByRole('link', { name: 'Export these' }).getAttribute('href');
  const lines = await page.evaluate(async (href) => (await (await fetch(href)).text()).trim().split('\n'), href ?? '');
  assert.ok(lines.length >= 1 && lines.every((line) => 'seq' in (JSON.parse(line) as object)));
  await page.getByLabel('Device').fill('nobody');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByRole('heading', { name: 'Nothing was found' }).waitFor();
  assert.equal(await page.getByLabel('Device').getAttribute('aria-invalid'), 'true');
});

test('what a rule holds is rejected with a note', async () => {
  await go('app', APP, 'reviews');
  await page.getByRole('heading', { name: 'Nothing waits for review' }).waitFor();
  // Nobody judges their own: it is sent by somebody else.
  const { key } = (await stage.api('POST', `/apps/${APP}/keys`, { name: 'partner', role: 'send' })) as { key: string };
  const message = { target: { everyone: true }, name: 'Held', notification: { title: 'free money' } };
  await stage.api('POST', `/apps/${APP}/messages`, message, { authorization: `Bearer ${key}` });
  await go('app', APP, 'messages');
  await row('Held').getByText('In review').waitFor();
  await go('app', APP, 'reviews');
  await page.getByRole('link', { name: 'Held' }).waitFor();
  await page.getByRole('button', { name: 'Reject…' }).click();
  await page.getByLabel('Note').fill('No promises.');
  await page.getByRole('button', { name: 'Reject', exact: true }).click();
  await page.getByRole('heading', { name: 'Nothing waits for review' }).waitFor();
});

test('an app that is not there is said, with a way to try again', async () => {
  await go('app', 'nothing', 'messages');
  await page.getByRole('alert').waitFor();
  await page.getByRole('button', { name: 'Try again' }).waitFor();
  await go('nowhere');
  await page.getByRole('heading', { name: 'There is no such page' }).waitFor();
});

test('every page fits a narrow screen, names its controls and can be read', async () => {
  const { messages } = (await stage.api('GET', `/apps/${APP}/messages`)) as { messages: { id: string }[] };
  const pages = [['node'], ['apps'], ...['compose', 'messages', 'reviews', 'devices', 'audit'].map((name) => ['app', APP, name])];
  pages.push(['app', APP, 'devices', device(4)], ['app', APP, 'messages', messages.at(-1)?.id ?? '']);
  const found: string[] = [];
  for (const colorScheme of ['light', 'dark'] as const) {
    for (const width of [360, 800, 1280]) {
      const { page } = await visit(chromium, { colorScheme, viewport: { width, height: 800 } });
      await logIn(stage, page);
      for (const parts of pages) {
        await page.goto(`${stage.url}#/push/${parts.join('/')}`);
        await page.getByRole('heading', { level: 1 }).waitFor();
        await page.waitForFunction(() => document.querySelector('.wait') === null);
        const faults = await page.evaluate(inspect);
        found.push(...faults.map((fault) => `${parts.join('/')}, ${width}, ${colorScheme}: ${fault}`));
      }
      await page.context().close();
    }
  }
  assert.deepEqual(found, []);
});

test('the keyboard alone is enough, and a dialog keeps it', async () => {
  const narrow = await visit(chromium, { viewport: { width: 390, height: 800 } });
  await logIn(stage, narrow.page);
  await narrow.page.getByRole('button', { name: 'Menu' }).press('Enter');
  await narrow.page.getByRole('link', { name: 'Devices' }).press('Enter');
  await narrow.page.getByRole('heading', { name: 'Devices' }).waitFor();
  assert.ok(await narrow.page.getByRole('link', { name: 'Audit' }).isHidden(), 'the menu has closed');
  await narrow.page.getByRole('button', { name: 'Menu' }).press('Enter');
  await narrow.page.keyboard.press('Escape');
  assert.ok(await narrow.page.getByRole('link', { name: 'Audit' }).isHidden());
  await narrow.page.context().close();

  await go('apps');
  await page.getByRole('button', { name: 'Create app…' }).press('Enter');
  for (let n = 0; n < 8; n++) {
    await page.keyboard.press('Tab');
    assert.ok(await page.evaluate(() => document.activeElement === document.body || document.activeElement?.closest('dialog') !== null));
  }
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  const focused = await page.evaluate(() => document.activeElement?.textContent);
  assert.match(focused ?? '', /Create app/, 'where it was before');
});

/** In the page: what does not fit, has no name, or differs too little from what is behind it. */
function inspect(): string[] {
  const faults: string[] = [];
  const over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (over > 0) faults.push(`${over} px too wide`);
  for (const control of document.querySelectorAll<HTMLInputElement>('input, select, textarea, button, a')) {
    const named = control.labels?.length || control.ariaLabel || control.textContent?.trim();
    if (!named) faults.push(`no name: ${control.outerHTML.slice(0, 80)}`);
  }
  const colour = (text: string): number[] => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r = 0, g = 0, b = 0]: number[]): number => {
    const part = (value: number): number => (value <= 10 ? value / 3295 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (from: Element | null): number[] => {
    for (let element = from; element; element = element.parentElement) {
      const style = getComputedStyle(element);
      const [r = 0, g = 0, b = 0, alpha = 1] = colour(style.backgroundColor);
      if (style.backgroundImage !== 'none') return [];
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const element = text.parentElement;
    if (!element || !text.textContent?.trim() || !element.checkVisibility({ opacityProperty: true })) continue;
    if (element.closest('.hidden, :disabled, option')) continue;
    const back = behind(element);
    if (back.length === 0) continue;
    const [one, two] = [light(colour(getComputedStyle(element).color)), light(back)];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${text.textContent.trim().slice(0, 40)}`);
  }
  return [...new Set(faults)];
}

test('no script failed and no policy was broken in all of this', () => {
  assert.deepEqual(errors, []);
});
