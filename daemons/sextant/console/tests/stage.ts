// What a test plays on: `sextant up` of this workspace, with data, ports and a daemon of its own, and
// a browser in front of it. Both have to be built before: `npm run build`, then
// `cargo build --release -p sextant -p sextant-push`.

import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';

const HERE = dirname(fileURLToPath(import.meta.url));
const CONSOLE = resolve(HERE, '..');
const READY_MS = 30_000;

/** A rule that holds something for review. */
const CONFIG = `
[[platform.policy.content]]
name = "money-words"
when = { keywords = ["money"] }
outcome = "review"
reason = "The text speaks of money"
`;

export interface Stage {
  url: string;
  link: string;
  token: string;
  /** The daemon's MQTT address. */
  mqtt: string;
  /** Asks the daemon's API, as an administrator unless the headers say otherwise. */
  api(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<unknown>;
  close(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

export async function open(): Promise<Stage> {
  const target = process.env['CARGO_TARGET_DIR'] ?? resolve(CONSOLE, '../../../target');
  const data = await mkdtemp(join(tmpdir(), 'sextant-console-'));
  await writeFile(join(data, 'push.toml'), CONFIG);
  const [mqtt, admin, port] = [await freePort(), await freePort(), await freePort()];
  const child = spawn(
    join(target, 'release/sextant'),
    ['up', '--data', data, '--console', `127.0.0.1:${port}`, '--set', `push.mqtt.listen=127.0.0.1:${mqtt}`, '--set', `push.admin.listen=127.0.0.1:${admin}`],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const said: string[] = [];
  const close = async (): Promise<void> => {
    await ended(child);
    await rm(data, { recursive: true, force: true });
  };
  const link = await new Promise<string>((found, failed) => {
    const late = setTimeout(() => failed(new Error(`sextant up is not ready:\n${said.join('\n')}`)), READY_MS);
    child.once('error', failed);
    child.once('exit', () => failed(new Error(`sextant up has ended:\n${said.join('\n')}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      said.push(line);
      const link = /http:\S+#login=\S+/.exec(line)?.[0];
      if (link === undefined) return;
      clearTimeout(late);
      found(link);
    });
  }).catch(async (error: unknown) => {
    await close();
    throw error;
  });
  const token = (await readFile(join(data, 'push/admin.token'), 'utf8')).trim();
  const api = asker(`http://127.0.0.1:${admin}/v1`, { authorization: `Bearer ${token}` });
  return { url: `http://127.0.0.1:${port}/`, link, token, mqtt: `127.0.0.1:${mqtt}`, api, close };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((done) => child.once('exit', done));
  child.kill('SIGTERM');
  await exit;
}

function asker(base: string, headers: Record<string, string>): Stage['api'] {
  return async (method, path, body, own) => {
    const init: RequestInit = { method, headers: { ...headers, ...own } };
    if (body !== undefined) init.body = JSON.stringify(body);
    const answer = await fetch(base + path, init);
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === '' ? undefined : JSON.parse(text);
  };
}

export function browser(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: ['--headless=new', '--no-sandbox', '--disable-gpu-sandbox', '--use-angle=swiftshader', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'],
  });
}

/** A page with what went wrong in it: errors of scripts, and what its security policy forbade. */
export async function visit(browser: Browser, options: BrowserContextOptions = {}): Promise<{ page: Page; errors: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => {
    // An answer that is a refusal is no fault of the page.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) errors.push(message.text());
  });
  return { page, errors };
}

/** Logs in as somebody does who has the token. */
export async function logIn(stage: Stage, page: Page): Promise<void> {
  await page.goto(stage.url);
  await page.getByLabel('Admin token').fill(stage.token);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Node health' }).waitFor();
}
