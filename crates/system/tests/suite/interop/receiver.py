"""gpsd on a pseudo-terminal, and at its other end a receiver of satellites: NMEA each second, and u-blox's word on its signals.

A line of standard input is a latitude and a longitude, `spoofed` or `honest`. gpsd ends with standard input.
"""

import os
import pty
import socket
import subprocess
import sys
import threading
import time
import tty


def sentence(body):
    checksum = 0
    for character in body.encode():
        checksum ^= character
    return f"${body}*{checksum:02X}\r\n".encode()


def angle(degrees, digits, letters):
    whole = int(abs(degrees))
    minutes = (abs(degrees) - whole) * 60
    return f"{whole:0{digits}d}{minutes:07.4f},{letters[degrees < 0]}"


def ubx(number, kind, payload):
    body = bytes([number, kind]) + len(payload).to_bytes(2, "little") + payload
    first = second = 0
    for byte in body:
        first = (first + byte) & 0xFF
        second = (second + first) & 0xFF
    return b"\xb5\x62" + body + bytes([first, second])


class Receiver:
    def __init__(self, terminal):
        self.terminal = terminal
        self.latitude, self.longitude, self.spoofed = 52.52, 13.405, False

    def speak(self):
        now = time.gmtime()
        clock, day = time.strftime("%H%M%S.00", now), time.strftime("%d%m%y", now)
        at = f"{angle(self.latitude, 2, 'NS')},{angle(self.longitude, 3, 'EW')}"
        # NAV-STATUS: a fix in three dimensions; spoofDetState is 1 (none) or 2 (indicated).
        status = bytes([0, 0, 0, 0, 3, 0x0D, 0, (2 if self.spoofed else 1) << 3]) + bytes(8)
        for part in [
            sentence(f"GPGGA,{clock},{at},1,08,1.0,40.0,M,45.0,M,,"),
            sentence("GPGSA,A,3,01,03,06,09,11,17,19,22,,,,,1.8,1.0,1.5"),
            sentence("GPGSV,2,1,08,01,40,083,46,03,17,308,41,06,07,344,39,09,70,180,45"),
            sentence("GPGSV,2,2,08,11,30,090,44,17,45,270,42,19,20,040,40,22,60,010,43"),
            ubx(0x01, 0x03, status),
            sentence(f"GPRMC,{clock},A,{at},0.1,0.0,{day},,,A"),
        ]:
            os.write(self.terminal, part)

    def run(self):
        while True:
            self.speak()
            time.sleep(1)

    def obey(self, line):
        words = line.split()
        if len(words) == 2:
            self.latitude, self.longitude = map(float, words)
        else:
            self.spoofed = words == ["spoofed"]


def answers(port):
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("gpsd does not answer")


def main():
    port = int(sys.argv[1])
    terminal, other = pty.openpty()
    tty.setraw(other)
    # gpsd gives up being root before it opens it.
    os.fchmod(other, 0o666)
    gpsd = subprocess.Popen(["gpsd", "-N", "-n", "-b", "-S", str(port), os.ttyname(other)], stderr=subprocess.DEVNULL)
    try:
        receiver = Receiver(terminal)
        threading.Thread(target=receiver.run, daemon=True).start()
        answers(port)
        print("standing", flush=True)
        for line in sys.stdin:
            receiver.obey(line)
    finally:
        gpsd.terminate()
        gpsd.wait()


main()
