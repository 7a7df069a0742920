/** The example of the README is one that compiles. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

test("the example of the README compiles", async () => {
  const folder = new URL("../../", import.meta.url);
  const example = await readFile(new URL("test/example.ts", folder), "utf8");
  const readme = await readFile(new URL("README.md", folder), "utf8");
  assert.ok(readme.includes(`\`\`\`ts\n${example}\`\`\``));
});
