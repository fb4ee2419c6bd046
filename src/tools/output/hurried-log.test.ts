import { describe, expect, test } from 'vitest';
import { HurriedLog } from './hurried-log.ts';

/** A reader with room for so many bytes, which a pause makes larger; what it got, and how long was waited for it. */
function reader(room: number, growth = 0) {
  const state = { room, text: '', time: 0 };
  const log = new HurriedLog(
    'prog',
    (bytes) => {
      const taken = Math.min(bytes.length, state.room);
      state.room -= taken;
      state.text += new TextDecoder().decode(bytes.subarray(0, taken));
      return taken;
    },
    {
      now: () => state.time,
      pause: (milliseconds) => {
        state.time += milliseconds;
        state.room += growth;
      },
    },
  );
  return { state, log };
}

describe('messages that must not wait', () => {
  test('one is kept, as far as there was no room for it, the others are counted, and told of when there is room', () => {
    const { state, log } = reader(5);
    log.write('first one\n');
    log.write('second\n');
    log.write('third\n');
    expect(state).toMatchObject({ text: 'first', time: 0 });
    state.room = 1000;
    log.write('fourth\n');
    const told = 'prog: warning: 2 messages were dropped, as nobody read them in time\n';
    expect(state).toMatchObject({ text: `first one\n${told}fourth\n`, time: 0 });
    log.write('fifth\n');
    expect(state.text).toBe(`first one\n${told}fourth\nfifth\n`);
  });

  test('at the end they wait for a second in all, no matter how many they are', () => {
    const { state, log } = reader(0);
    log.write('a\n');
    log.write('b\n');
    log.beLast();
    log.write('c\n');
    expect(state).toMatchObject({ text: '', time: 1000 });
  });

  test('at the end a slow reader gets what is left, and what comes last', () => {
    const { state, log } = reader(0, 10);
    log.write('a\n');
    log.write('b\n');
    log.beLast();
    log.write('the last word\n');
    const told = 'prog: warning: 1 message was dropped, as nobody read them in time\n';
    expect(state.text).toBe(`a\n${told}the last word\n`);
  });

  test('a reader that is gone is nobody to wait for', () => {
    let writes = 0;
    const log = new HurriedLog('prog', () => {
      writes++;
      throw new Error('EPIPE');
    });
    log.write('a\n');
    log.write('b\n');
    log.beLast();
    expect(writes).toBe(2);
  });
});
