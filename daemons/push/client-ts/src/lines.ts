/** Lines of a body as they come. */
import { AnswerError, TransportError } from "./errors.js";

/** The longest line, characters. */
const LINE_LENGTH_MAX = 4 << 20;

/**
 * The lines of a body, without their line breaks. When the caller leaves, the body is cancelled.
 *
 * @param silenceMaxMs how long nothing may come before it is a `TransportError`, milliseconds
 */
export async function* lines(
  body: ReadableStream<Uint8Array>,
  silenceMaxMs: number,
): AsyncGenerator<string, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  // A line that has no end yet, in the pieces that it came in.
  let held: string[] = [];
  let heldLength = 0;
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, silenceMaxMs);
      const text = done ? decoder.decode() : decoder.decode(value, { stream: true });
      const pieces = text.split("\n");
      const last = pieces.pop() ?? "";
      for (const piece of pieces) {
        const line = held.join("") + piece;
        held = [];
        heldLength = 0;
        yield line.endsWith("\r") ? line.slice(0, -1) : line;
      }
      held.push(last);
      heldLength += last.length;
      if (heldLength > LINE_LENGTH_MAX) {
        throw new AnswerError("a line is too long");
      }
      if (done) {
        if (heldLength > 0) {
          yield held.join("");
        }
        return;
      }
    }
  } finally {
    // It may have ended, or failed, by itself.
    await reader.cancel().catch(() => undefined);
  }
}

async function readWithin(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  ms: number,
): Promise<ReadableStreamReadResult<Uint8Array>> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came for ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } catch (error) {
    throw new TransportError(error);
  } finally {
    clearTimeout(timer);
  }
}
