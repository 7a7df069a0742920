import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` serves the pages with their changes at once, in front of a running `sextant up`.
const behind = process.env.SEXTANT_CONSOLE_URL ?? 'http://127.0.0.1:7700';

export default defineConfig({
  plugins: [svelte()],
  build: {
    // Everything is a file of its own: the content security policy allows nothing inline.
    assetsInlineLimit: 0,
    outDir: '.build',
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    target: 'es2022',
  },
  server: {
    proxy: Object.fromEntries(
      ['/api', '/session'].map((path) => [path, { target: behind, changeOrigin: true, headers: { origin: behind } }]),
    ),
  },
});
