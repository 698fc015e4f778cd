# gnuplot -c examples/studies/text.gp text.db docs/text.png
HEIGHT = 760
db = ARG1
out = ARG2
load system("dirname '".ARG0."'")."/style.gp"
of(vocabulary, metric) = query(sprintf("SELECT avg(v.%s), min(v.%s), max(v.%s), CASE ifnull(o.value, '') WHEN '' THEN 0 ELSE (instr('prose      dictionary novels     kernel     c          languages  ', o.value || ' ') - 1) / 11 + 1 END FROM v_runs v JOIN run_param p ON p.run = v.run AND p.path = 'workload.vocabulary' LEFT JOIN run_param o ON o.run = v.run AND o.path = 'workload.only' WHERE p.value = '%s' GROUP BY 4", metric, metric, metric, vocabulary))
set multiplot layout 1, 2 margins 0.20, 0.97, 0.14, 0.84 spacing 0.06, 0
set yrange [6.5:-0.5]
set ytics ("all six" 0, "prose" 1, "dictionary" 2, "novels" 3, "kernel" 4, "C" 5, "19 languages" 6) scale 0 textcolor rgb ink
set label 1 "Six kinds of real text through one seeded gate" at screen 0.02, 0.945 font "Inter Bold,25" textcolor rgb ink
set label 2 "64 experts, 8 a token, mean over 8 layers, 10 steps of 4096 tokens and 10 gates; bars: least and most of the gates" at screen 0.02, 0.885 font "Inter,16" textcolor rgb soft
set label 3 "bytes" at screen 0.76, 0.945 textcolor rgb blue
set label 4 "words" at screen 0.87, 0.945 textcolor rgb orange
set xlabel "busiest expert over the mean, less 1" textcolor rgb soft
set xrange [0:*]
plot of("byte", "max_vio") using 1:($4 - 0.12):2:3 with xerrorbars lc rgb blue pt 7 ps 1.4, \
     of("word", "max_vio") using 1:($4 + 0.12):2:3 with xerrorbars lc rgb orange pt 7 ps 1.4
do for [i = 1:4] { unset label i }
set ytics ("" 0, "" 1, "" 2, "" 3, "" 4, "" 5, "" 6)
set xlabel "experts shared with the token before"
set xrange [0.3:0.6]
set xtics 0.1
plot of("byte", "lag1_overlap") using 1:($4 - 0.12):2:3 with xerrorbars lc rgb blue pt 7 ps 1.4, \
     of("word", "lag1_overlap") using 1:($4 + 0.12):2:3 with xerrorbars lc rgb orange pt 7 ps 1.4
