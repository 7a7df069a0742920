// Puts what was built into dist and leaves alone what is there already: cargo compiles `sextant`
// again when a file of dist is newer than it, and a build that changed nothing is no reason.

import { cp, mkdir, readFile, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const [BUILT, KEPT] = ['.build', 'dist'];

const all = async (dir) => {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile());
  return files.map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(dir.length + 1));
};
const content = (dir, name) => readFile(join(dir, name)).catch(() => null);

const built = await all(BUILT);
for (const name of built) {
  const [now, before] = [await content(BUILT, name), await content(KEPT, name)];
  if (before !== null && now.equals(before)) continue;
  await mkdir(dirname(join(KEPT, name)), { recursive: true });
  await cp(join(BUILT, name), join(KEPT, name));
}
for (const name of await all(KEPT)) {
  if (!built.includes(name)) await rm(join(KEPT, name));
}
await rm(BUILT, { recursive: true });
