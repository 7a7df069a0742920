// What a test plays on: a console with a browser in front of it.
//
//   real   `sextant up` of this workspace, with data, ports and a daemon of its own
//   fake   the stand-in of fake.ts, which is faster to change pages against
//
// CONSOLE_STAGE=fake runs everything on the stand-in; what only the real one has is skipped there.

import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';

import { start } from './fake.js';

const HERE = dirname(fileURLToPath(import.meta.url));
const CONSOLE = resolve(HERE, '..');
const READY_MS = 30_000;

export const isFake = process.env['CONSOLE_STAGE'] === 'fake';

export interface Stage {
  url: string;
  link: string;
  token: string;
  /** The daemon's MQTT address; none on the stand-in. */
  mqtt: string | null;
  /** Asks the daemon's API as an administrator: what a test needs before a person comes. */
  api(method: string, path: string, body?: unknown): Promise<unknown>;
  close(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

async function real(): Promise<Stage> {
  const target = process.env['CARGO_TARGET_DIR'] ?? resolve(CONSOLE, '../../../target');
  const data = await mkdtemp(join(tmpdir(), 'sextant-console-'));
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

async function fake(): Promise<Stage> {
  const fake = await start(join(CONSOLE, 'dist'), 0, false);
  const login = await fetch(`${fake.url}session`, { method: 'POST', body: JSON.stringify({ token: fake.token }) });
  const cookie = login.headers.get('set-cookie') ?? '';
  return { ...fake, mqtt: null, api: asker(`${fake.url}api/push/v1`, { cookie }) };
}

function asker(base: string, headers: Record<string, string>): Stage['api'] {
  return async (method, path, body) => {
    const init: RequestInit = { method, headers };
    if (body !== undefined) init.body = JSON.stringify(body);
    const answer = await fetch(base + path, init);
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === '' ? undefined : JSON.parse(text);
  };
}

export function open(): Promise<Stage> {
  return isFake ? fake() : real();
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
