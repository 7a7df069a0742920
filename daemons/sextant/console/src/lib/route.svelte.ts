// Where the person is: the fragment of the address, `#/push/apps?x=y`.

export interface Where {
  path: string[];
  query: URLSearchParams;
}

function read(): Where {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const parts = path.split('/').filter((part) => part !== '');
  return { path: parts.map(decode), query: new URLSearchParams(query) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

class Route {
  at: Where = $state.raw(read());

  constructor() {
    addEventListener('hashchange', () => (this.at = read()));
  }

  /** Goes there, as a step that the back button undoes. */
  go(href: string): void {
    location.hash = href;
  }

  /** Puts parameters in the address without a step. */
  keep(query: Record<string, string>): void {
    const pairs = Object.entries(query).filter(([, value]) => value !== '');
    const text = new URLSearchParams(pairs).toString();
    const path = location.hash.split('?', 1)[0] ?? '#/';
    history.replaceState(null, '', text === '' ? path : `${path}?${text}`);
  }
}

export const route = new Route();

/** `#/push/app/shop/devices` of its parts. */
export function to(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join('/')}`;
}

/** The page of an app. */
export function toApp(app: string, ...parts: string[]): string {
  return to('push', 'app', app, ...parts);
}
