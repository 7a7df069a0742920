// Names that nothing else has.

/** 128 random bits: for an idempotency key. Also where the page is not in a secure context. */
export function id(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
