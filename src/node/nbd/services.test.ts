import { describe, expect, test } from 'vitest';
import { portIn } from './services.ts';

const SERVICES = `# a comment, with nbd 1/tcp
domain\t\t53/udp
http\t\t80/tcp\t\twww web\t\t# WorldWideWeb alias
tftp            69/udp
nbd 10809/tcp # network block device

broken
`;

describe('ports of services', () => {
  test.each([
    ['nbd', 10809],
    ['http', 80],
    ['www', 80],
    ['web', 80],
    // Of TCP only, to the letter, and nothing of a comment.
    ['tftp', undefined],
    ['domain', undefined],
    ['HTTP', undefined],
    ['alias', undefined],
    ['broken', undefined],
    ['', undefined],
  ])('%j: %j', (name, port) => {
    expect(portIn(SERVICES, name)).toBe(port);
  });
});
