// Logging in and out, and the page that is seen first.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser } from 'playwright-core';

import { browser, logIn, open, visit, type Stage } from './stage.js';

let stage: Stage;
let chromium: Browser;

before(async () => {
  [stage, chromium] = await Promise.all([open(), browser()]);
});

after(async () => {
  await chromium?.close();
  await stage?.close();
});

test('the link logs in once and leaves the address', async () => {
  const { page, errors } = await visit(chromium);
  await page.goto(stage.link);
  await page.getByRole('heading', { name: 'Node health' }).waitFor();
  assert.equal(page.url(), stage.url);
  assert.equal(await page.title(), 'Node health · Sextant');
  const cookies = await page.context().cookies();
  assert.ok(cookies.every((cookie) => cookie.httpOnly && cookie.sameSite === 'Strict'));
  assert.equal(await page.evaluate(() => document.cookie), '', 'no script sees the session');

  const other = await visit(chromium);
  await other.page.goto(stage.link);
  await other.page.getByText('this login link was used already').waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
  await other.page.context().close();
});

test('the admin token logs in and another does not', async () => {
  const { page } = await visit(chromium);
  await page.goto(stage.url);
  await page.getByLabel('Admin token').fill('wrong');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('alert').getByText('this is not the admin token').waitFor();
  await logIn(stage, page);
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  await page.reload();
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  await page.context().close();
});

test('node health shows the daemon as it is', async () => {
  const { page, errors } = await visit(chromium);
  await logIn(stage, page);
  await page.getByText('Serving').waitFor();
  await page.getByText('Up for').waitFor();
  // Rates come with the second look.
  await page.getByText(/^\d+(\.\d)? \/s$/).first().waitFor();
  assert.equal(await page.locator('figure canvas').count(), 2);
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('nothing is inline and nothing comes from elsewhere', async () => {
  const answer = await fetch(stage.url);
  const policy = answer.headers.get('content-security-policy') ?? '';
  assert.match(policy, /^default-src 'self';/);
  assert.doesNotMatch(policy, /unsafe|https?:|\*/);
  const asked: string[] = [];
  const { page } = await visit(chromium);
  page.on('request', (request) => asked.push(request.url()));
  await logIn(stage, page);
  assert.ok(asked.length > 3 && asked.every((url) => url.startsWith(stage.url)), asked.join('\n'));
  await page.context().close();
});
